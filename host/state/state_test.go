package state

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/transporthost/transporthost/shared/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustOpen(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStateOutlivesTheHost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := mustOpen(t, dir)
	for _, instance := range []string{"phone", "tablet"} {
		if err := s.Instance(instance).Save("who", []byte(instance)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Instance("phone").Save("empty", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Instance("phone").Save("gone", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Instance("phone").Delete("gone"); err != nil {
		t.Fatal(err)
	}
	if err := s.Instance("nobody").Delete("gone"); err != nil {
		t.Errorf("deleting what never was: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Instance("phone").Load("who"); !errors.Is(err, transport.ErrStopping) {
		t.Errorf("Load after Close: got %v, want ErrStopping", err)
	}
	if err := s.Instance("phone").Save("who", nil); !errors.Is(err, transport.ErrStopping) {
		t.Errorf("Save after Close: got %v, want ErrStopping", err)
	}

	s = mustOpen(t, dir)
	tests := []struct {
		instance, key string
		want          string
		wantErr       error
	}{
		{"phone", "who", "phone", nil},
		{"tablet", "who", "tablet", nil}, // each has its own keys
		{"phone", "empty", "", nil},
		{"phone", "gone", "", transport.ErrNotFound},
		{"phone", "", "", transport.ErrNotFound},
		{"nobody", "who", "", transport.ErrNotFound},
	}
	for _, tt := range tests {
		got, err := s.Instance(tt.instance).Load(tt.key)
		if string(got) != tt.want || !errors.Is(err, tt.wantErr) {
			t.Errorf("Load(%q) of %s: got %q, %v, want %q, %v", tt.key, tt.instance, got, err, tt.want, tt.wantErr)
		}
	}
}

func TestBounds(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	b := s.Instance("phone")
	tests := []struct {
		name    string
		key     string
		value   int
		wantErr error // nil if it is stored
	}{
		{"largest value", "v", transport.MaxStateBytes, nil},
		{"larger", "v+", transport.MaxStateBytes + 1, transport.ErrTooLarge},
		{"longest key", strings.Repeat("k", MaxKeyBytes), 1, nil},
		{"longer", strings.Repeat("k", MaxKeyBytes+1), 1, transport.ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := b.Save(tt.key, make([]byte, tt.value)); !errors.Is(err, tt.wantErr) {
				t.Errorf("got %v, want %v", err, tt.wantErr)
			}
			v, err := b.Load(tt.key)
			if tt.wantErr == nil && len(v) != tt.value {
				t.Errorf("loaded %d bytes, %v, want %d", len(v), err, tt.value)
			}
			if tt.wantErr != nil && !errors.Is(err, transport.ErrNotFound) {
				t.Errorf("a refused value is there: %v", err)
			}
		})
	}
	if err := b.Save("", []byte("x")); err == nil {
		t.Error("an empty key was saved")
	}
}

// TestBoundOfAnInstance fills one instance by number and another by size; a
// third is not concerned, and what is there can still be replaced.
func TestBoundOfAnInstance(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	s.db.NoSync = true // a thousand writes
	many, large := s.Instance("many"), s.Instance("large")
	for i := range MaxKeys {
		if err := many.Save(fmt.Sprint(i), []byte("x")); err != nil {
			t.Fatalf("key %d: %v", i, err)
		}
	}
	stored := 0
	for i := range MaxBytes / transport.MaxStateBytes {
		err := large.Save(fmt.Sprintf("%04d", i), make([]byte, transport.MaxStateBytes-4))
		if err != nil {
			t.Fatalf("value %d: %v", i, err)
		}
		stored += transport.MaxStateBytes
	}
	for _, b := range []*Bucket{many, large} {
		if err := b.Save("one more", []byte("x")); !errors.Is(err, transport.ErrTooLarge) {
			t.Errorf("one more than fits into %q: got %v, want ErrTooLarge", b.name, err)
		}
		if _, err := b.Load("one more"); !errors.Is(err, transport.ErrNotFound) {
			t.Errorf("what did not fit into %q is there: %v", b.name, err)
		}
	}
	if err := many.Save("7", []byte("other")); err != nil {
		t.Errorf("replacing a value of a full instance: %v", err)
	}
	if err := s.Instance("third").Save("one more", []byte("x")); err != nil {
		t.Errorf("an instance beside full ones: %v", err)
	}
	if err := large.Delete("0000"); err != nil {
		t.Fatal(err)
	}
	if err := large.Save("one more", []byte("x")); err != nil {
		t.Errorf("after making room: %v", err)
	}
}

func TestOneHostOnly(t *testing.T) {
	dir := t.TempDir()
	first := mustOpen(t, dir)
	_, err := Open(dir)
	if err == nil || !strings.Contains(err.Error(), "in use by another host") {
		t.Errorf("a second host: got %v, want that the state is in use", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir)
}

// TestKilledHost kills a host in the middle of writing: what it was told is
// stored is there, and the next host opens the file without waiting.
func TestKilledHost(t *testing.T) {
	const dirOfVictim = "STATE_TEST_DIR"
	if dir := os.Getenv(dirOfVictim); dir != "" {
		b := mustOpen(t, dir).Instance("phone")
		for i := 0; ; i++ {
			if err := b.Save(fmt.Sprint(i%50), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
			fmt.Println("stored", i)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestKilledHost$")
		cmd.Env = append(os.Environ(), dirOfVictim+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stored := -1
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, err := fmt.Sscanf(lines.Text(), "stored %d", &stored); err == nil && stored == 20+round {
				_ = cmd.Process.Kill() // it goes on writing until this arrives
			}
		}
		_ = cmd.Wait() // killed
		if stored < 20 {
			t.Fatalf("the host stored only %d", stored)
		}
		s := mustOpen(t, dir)
		got, err := s.Instance("phone").Load(fmt.Sprint(stored % 50))
		n, _ := strconv.Atoi(string(got))
		if err != nil || n < stored {
			t.Errorf("got %q, %v, want %d or what came after it", got, err, stored)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageIsNamed(t *testing.T) {
	good := func(t *testing.T) []byte {
		dir := t.TempDir()
		s := mustOpen(t, dir)
		for i := range 40 {
			if err := s.Instance(fmt.Sprint("instance", i%4)).Save(fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, 5000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(dir, FileName))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	tests := []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"not a state file", func([]byte) []byte { return bytes.Repeat([]byte("what is this? "), 5000) }},
		{"a few bytes", func(c []byte) []byte { return c[:100] }},
		{"cut in the middle", func(c []byte) []byte { return c[:len(c)/2/4096*4096] }},
		{"cut behind the head", func(c []byte) []byte { return c[:2*4096] }},
		{"overwritten behind the head", func(c []byte) []byte {
			for i := 2 * os.Getpagesize(); i < len(c); i++ {
				c[i] = 0xff
			}
			return c
		}},
		{"zeros behind the head", func(c []byte) []byte {
			clear(c[2*os.Getpagesize():])
			return c
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, FileName)
			if err := os.WriteFile(file, tt.damage(good(t)), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir)
			if err == nil {
				_ = s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "is damaged") || !strings.Contains(err.Error(), file) {
				t.Errorf("got %v, want that %s is damaged", err, file)
			}
		})
	}
}

// TestBucketsAgainstAModel opens the file again in between, as a restarted
// host does.
func TestBucketsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s := mustOpen(t, dir)
		s.db.NoSync = true
		model := map[[2]string]string{}
		instance, key := rapid.SampledFrom([]string{"a", "b"}), rapid.StringN(1, 3, 12)
		rt.Repeat(map[string]func(*rapid.T){
			"save": func(rt *rapid.T) {
				at, v := [2]string{instance.Draw(rt, "instance"), key.Draw(rt, "key")}, rapid.String().Draw(rt, "value")
				if err := s.Instance(at[0]).Save(at[1], []byte(v)); err != nil {
					rt.Fatal(err)
				}
				model[at] = v
			},
			"delete": func(rt *rapid.T) {
				at := [2]string{instance.Draw(rt, "instance"), key.Draw(rt, "key")}
				if err := s.Instance(at[0]).Delete(at[1]); err != nil {
					rt.Fatal(err)
				}
				delete(model, at)
			},
			"restart": func(rt *rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = mustOpen(t, dir)
				s.db.NoSync = true
			},
			"": func(rt *rapid.T) {
				for at, want := range model {
					if got, err := s.Instance(at[0]).Load(at[1]); err != nil || string(got) != want {
						rt.Fatalf("%q of %s: got %q, %v, want %q", at[1], at[0], got, err, want)
					}
				}
			},
		})
		_ = s.Close()
	})
}

func TestManyAtOnce(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			b := s.Instance(fmt.Sprint(i % 2))
			for j := range 10 {
				key := fmt.Sprintf("%d-%d", i, j)
				if err := b.Save(key, []byte(key)); err != nil {
					t.Error(err)
				}
				if v, err := b.Load(key); err != nil || string(v) != key {
					t.Errorf("got %q, %v, want %q", v, err, key)
				}
			}
		})
	}
	all.Wait()
}
