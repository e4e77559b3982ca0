package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/tests/relay/fakehost"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestServeAndTalk does what serve tells a person to do, with a host that
// echoes.
func TestServeAndTalk(t *testing.T) {
	for _, tt := range []struct {
		name, protocol string
		args           []string
	}{
		{"protocol 3", "3", nil},
		{"protocol 3 without a token", "3", []string{"--no-token"}},
		{"protocol 2", "2", []string{"--protocol", "2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			auth := filepath.Join(t.TempDir(), "auth.json")
			out, served, stop := start(ctx, append([]string{"serve", "--listen", "127.0.0.1:0", "--auth-file", auth}, tt.args...))
			said := readUntil(t, out, "Any WebSocket client")
			base := find(t, said, `ready on (http://\S+/backend-api/), protocol `+tt.protocol)
			controllers := find(t, said, `talk --url (ws://\S+/controller) --client phone`)
			if !strings.Contains(said, auth) || strings.Contains(said, "protocol = 2") != (tt.protocol == "2") {
				t.Errorf("serve says:\n%s", said)
			}

			host := &fakehost.Echo{Host: hostOf(t, base, tt.protocol, auth)}
			hosting, leave := context.WithCancel(ctx)
			hosted := make(chan error, 1)
			go func() { hosted <- host.Run(hosting) }()

			var answers, words bytes.Buffer
			in := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"clientInfo":{"name":"t","version":"1"}}}` + "\n\n" +
				`{"jsonrpc":"2.0","method":"initialized"}` + "\n" + `{"jsonrpc":"2.0","id":"b","method":"echo","params":[1, 2]}`
			if code := run(ctx, []string{"talk", "--url", controllers, "--client", "phone"}, strings.NewReader(in), &answers, &words); code != 0 {
				t.Errorf("talk ended with %d: %s", code, words.String())
			}
			want := `{"jsonrpc":"2.0","id":1,"result":{"clientInfo":{"name":"t","version":"1"}}}` + "\n" + `{"jsonrpc":"2.0","id":"b","result":[1,2]}` + "\n"
			if answers.String() != want {
				t.Errorf("talk printed %q, want %q", answers.String(), want)
			}
			leave()
			if err := <-hosted; hosting.Err() == nil {
				t.Errorf("the host ended early: %v", err)
			}
			stop()
			if code := <-served; code != 0 {
				t.Errorf("serve ended with %d, want 0", code)
			}
			if err := mayReplace(auth); err != nil {
				t.Errorf("the next relay may not write its file: %v", err)
			}
		})
	}
}

// start runs the program and returns its stdout, its exit status and what
// interrupts it.
func start(ctx context.Context, args []string) (out *bufio.Reader, code <-chan int, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	exit := make(chan int, 1)
	go func() {
		status := run(ctx, args, strings.NewReader(""), w, io.Discard)
		_ = w.Close()
		exit <- status
	}()
	return bufio.NewReader(r), exit, func() {
		cancel()
		_, _ = io.Copy(io.Discard, r) // or it would wait for a reader
	}
}

func readUntil(t *testing.T, r *bufio.Reader, text string) string {
	t.Helper()
	var said strings.Builder
	for !strings.Contains(said.String(), text) {
		line, err := r.ReadString('\n')
		said.WriteString(line)
		if err != nil {
			t.Fatalf("awaiting %q: %v after\n%s", text, err, said.String())
		}
	}
	return said.String()
}

func find(t *testing.T, text, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("%q is not in\n%s", pattern, text)
	}
	return found[1]
}

// hostOf is a host with the credentials of an auth.json.
func hostOf(t *testing.T, base, protocol, auth string) *fakehost.Host {
	t.Helper()
	content, err := os.ReadFile(auth)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tokens struct {
			Access  string `json:"access_token"`
			Account string `json:"account_id"`
		} `json:"tokens"`
	}
	if err := json.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	return fakehost.New(base, protocol, file.Tokens.Account, file.Tokens.Access)
}

func TestWrongUse(t *testing.T) {
	login := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(login, []byte(`{"tokens": {"account_id": "somebody"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if content, err := os.ReadFile(login); err != nil || !strings.Contains(string(content), "somebody") {
			t.Errorf("the login of a person was replaced: %v", err)
		}
	})
	for _, tt := range []struct {
		name string
		args []string
		want int
		say  string
	}{
		{"nothing", nil, 2, "usage: relay serve"},
		{"an unknown command", []string{"sing"}, 2, "usage: relay serve"},
		{"an unknown flag", []string{"serve", "--loud"}, 2, "-loud"},
		{"a protocol of the future", []string{"serve", "--protocol", "4"}, 2, "-protocol"},
		{"a level of nobody", []string{"serve", "--log-level", "shout"}, 2, "-log-level"},
		{"an argument too much", []string{"talk", "x"}, 2, "-url"},
		{"help", []string{"help"}, 0, "usage: relay serve"},
		{"help of a command", []string{"serve", "-h"}, 0, "-auth-file"},
		{"protocol 1", []string{"serve", "--protocol", "1"}, 1, "relay: checking the options of a backend: Profile is 1, want 2 or 3"},
		{"no such address", []string{"serve", "--listen", "256.0.0.1:0"}, 1, "relay: listening:"},
		{"no such folder", []string{"serve", "--listen", "127.0.0.1:0", "--auth-file", filepath.Join(t.TempDir(), "none", "auth.json")}, 1, "relay: writing an auth file:"},
		{"the login of a person", []string{"serve", "--listen", "127.0.0.1:0", "--auth-file", login}, 1, "is there and not of a relay"},
		{"no relay", []string{"talk", "--url", "ws://127.0.0.1:1/controller"}, 1, "relay: connecting to ws://127.0.0.1:1/controller?client=terminal:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := run(t.Context(), tt.args, strings.NewReader(""), &out, &out); code != tt.want || !strings.Contains(out.String(), tt.say) {
				t.Errorf("got status %d and %q, want %d and %q", code, out.String(), tt.want, tt.say)
			}
		})
	}
}

// TestTalkWithoutAnAnswer has a relay without a host.
func TestTalkWithoutAnAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, served, stop := start(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--auth-file", filepath.Join(t.TempDir(), "auth.json")})
	controllers := find(t, readUntil(t, out, "Any WebSocket client"), `talk --url (ws://\S+/controller)`)
	var words bytes.Buffer
	code := run(ctx, []string{"talk", "--url", controllers, "--wait", "10ms"}, strings.NewReader(`{"id":1,"method":"x"}`), io.Discard, &words)
	if want := "relay: waiting for 10ms: not every request was answered\n"; code != 1 || words.String() != want {
		t.Errorf("got status %d and %q, want 1 and %q", code, words.String(), want)
	}
	stop()
	<-served
}
