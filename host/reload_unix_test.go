//go:build unix

package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/transporthost/transporthost/shared/transport"
)

// TestAMemberThatComesTooLate: the host ends while a reload adds a transport, of
// which nothing stays, and nobody waits for it.
func TestAMemberThatComesTooLate(t *testing.T) {
	r := start(t, nil, behaves("a", "plain"))
	r.awaitReady()
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	before := r.configured()
	late := behaves("b", "plain")
	socket := filepath.Join(shortDir(t), "s")
	late.Listen = []string{"unix://" + socket}
	expectNothing := func() {
		t.Helper()
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its socket: %v", err)
		}
		if r.member("b") != nil || len(r.configured()) != len(before) {
			t.Errorf("the host has it, and the transports %v", r.configured())
		}
	}

	r.adoptTransports(append(before, late))
	if err := r.add(t.Context(), late); !errors.Is(err, transport.ErrStopping) {
		t.Errorf("add: got %v", err)
	}
	expectNothing()

	r.adoptTransports(append(before, late))
	m, err := r.makeMember(t.Context(), late)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("%v; the test sees nothing", err)
	}
	asked := make(chan error)
	go func() { asked <- m.plugin.Restart(t.Context()) }()
	if err := r.run(t.Context(), m); !errors.Is(err, transport.ErrStopping) {
		t.Fatalf("run: got %v", err)
	}
	if err := r.discard(t.Context(), m); err != nil {
		t.Errorf("discard: got %v", err)
	}
	if err := <-asked; !errors.Is(err, transport.ErrStopping) {
		t.Errorf("who asked it got %v", err)
	}
	expectNothing()
}

// TestAReloadThatComesTooLate finds no place for what it would bind.
func TestAReloadThatComesTooLate(t *testing.T) {
	r := start(t, nil, behaves("a", "plain"))
	r.awaitReady()
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if err := r.premises.add([]string{"/s"}); !errors.Is(err, transport.ErrStopping) {
		t.Errorf("got %v", err)
	}
}
