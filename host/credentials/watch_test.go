package credentials

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// watching lets a store watch; the poll would hide what the watcher misses.
func watching(o *Options) { o.NoWatch = false }

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// link makes name a symbolic link to target, in the place of another one.
func link(t testing.TB, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name+".new"); err != nil {
		if runtime.GOOS == "windows" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// TestChangesAreSeen: whatever way the file changes, it is one change, told
// without a poll.
func TestChangesAreSeen(t *testing.T) {
	before, after := chatGPT("before", "r", "account"), chatGPT("after", "r", "account")
	tests := []struct {
		name string
		// prepare makes the file that the store is given; change makes it say
		// after.
		prepare func(t *testing.T, dir string) (file string)
		change  func(t *testing.T, dir, file string)
	}{
		{"rename", plain(before), func(t *testing.T, _, file string) { replace(t, file, after) }},
		{"in place", plain(before), func(t *testing.T, _, file string) { put(t, file, after) }},
		{"in place, slowly", plain(before), func(t *testing.T, _, file string) {
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for part := range slices.Chunk([]byte(after), len(after)/4) {
				time.Sleep(12 * time.Millisecond) // together long enough to be looked at
				if _, err := f.Write(part); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"deleted and made again", plain(before), func(t *testing.T, _, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * calm) // the same
			put(t, file, after)
		}},
		{"a link swapped", func(t *testing.T, dir string) string {
			mkdir(t, filepath.Join(dir, "home"))
			put(t, filepath.Join(dir, "one"), before)
			put(t, filepath.Join(dir, "two"), after)
			link(t, filepath.Join("..", "one"), filepath.Join(dir, "home", "auth.json"))
			return filepath.Join(dir, "home", "auth.json")
		}, func(t *testing.T, dir, file string) { link(t, filepath.Join(dir, "two"), file) }},
		{"the target of a link", func(t *testing.T, dir string) string {
			mkdir(t, filepath.Join(dir, "home"))
			mkdir(t, filepath.Join(dir, "vault"))
			put(t, filepath.Join(dir, "vault", "auth.json"), before)
			link(t, filepath.Join("..", "vault", "auth.json"), filepath.Join(dir, "home", "auth.json"))
			return filepath.Join(dir, "home", "auth.json")
		}, func(t *testing.T, dir, _ string) { replace(t, filepath.Join(dir, "vault", "auth.json"), after) }},
		{"a link to a directory swapped, as Kubernetes does", func(t *testing.T, dir string) string {
			mkdir(t, filepath.Join(dir, "v1"))
			mkdir(t, filepath.Join(dir, "v2"))
			put(t, filepath.Join(dir, "v1", "auth.json"), before)
			put(t, filepath.Join(dir, "v2", "auth.json"), after)
			link(t, "v1", filepath.Join(dir, "..data"))
			link(t, filepath.Join("..data", "auth.json"), filepath.Join(dir, "auth.json"))
			return filepath.Join(dir, "auth.json")
		}, func(t *testing.T, dir, _ string) { link(t, "v2", filepath.Join(dir, "..data")) }},
		{"a directory that is made later", func(_ *testing.T, dir string) string {
			return filepath.Join(dir, "a", "b", "auth.json")
		}, func(t *testing.T, _, file string) {
			mkdir(t, filepath.Dir(file))
			put(t, file, after)
		}},
		{"the directory replaced", func(t *testing.T, dir string) string {
			mkdir(t, filepath.Join(dir, "home"))
			put(t, filepath.Join(dir, "home", "auth.json"), before)
			mkdir(t, filepath.Join(dir, "next"))
			put(t, filepath.Join(dir, "next", "auth.json"), after)
			return filepath.Join(dir, "home", "auth.json")
		}, func(t *testing.T, dir, _ string) {
			if err := errors.Join(os.Rename(filepath.Join(dir, "home"), filepath.Join(dir, "old")),
				os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "home"))); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := tt.prepare(t, dir)
			f := newFixture(t, "", watching, func(o *Options) { o.File = file })
			f.run()
			f.watched()
			begin := time.Now()
			tt.change(t, dir, file)
			if c := f.next(); c != (transport.CredentialsChange{Generation: 2, Reason: reasonFile}) {
				t.Errorf("told %+v", c)
			}
			t.Logf("told %v after the change began", time.Since(begin))
			f.want("after", "account", 2)
			// The watches fit the way as it is now.
			put(t, file, chatGPT("third", "r", "account"))
			f.next()
			f.want("third", "account", 3)
			f.none()
		})
	}
}

func plain(content string) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		file := filepath.Join(dir, "auth.json")
		put(t, file, content)
		return file
	}
}

// watched returns when the watches stand. A change that comes before them is
// found by the first look, and would test nothing.
func (f *fixture) watched() {
	f.t.Helper()
	eventually(f.t, "the watches stand", func() bool { return strings.Contains(f.log.String(), "watching the credentials") })
}

func TestLogoutIsSeen(t *testing.T) {
	f := newFixture(t, chatGPT("a", "r", "account"), watching)
	f.run()
	f.watched()
	if err := os.Remove(f.file); err != nil {
		t.Fatal(err)
	}
	f.next()
	_, err := f.Credentials(t.Context())
	wantText(t, err, textNoAuth)
	wantContains(t, "problem", f.Status().Problem, "there is no such file")
	put(t, f.file, apiKeyFile)
	f.next()
	_, err = f.Credentials(t.Context())
	wantText(t, err, textAPIKey)
	replace(t, f.file, chatGPT("b", "r", "other"))
	f.next()
	f.want("b", "other", 4)
	f.none()
}

// TestBrokenFileIsNoAuth: what stays broken is accepted as that after a while,
// once, and its cause can be seen.
func TestBrokenFileIsNoAuth(t *testing.T) {
	f := newFixture(t, chatGPT("a", "r", "account"), watching)
	f.run()
	f.watched()
	put(t, f.file, "{\n\"tokens\": SECRET")
	f.next()
	st := f.Status()
	if st.Problem != "not JSON: line 2, byte 13" || st.Generation != 2 || st.Mode != "" {
		t.Errorf("status: %+v", st)
	}
	put(t, f.file, strings.Repeat(" ", maxFileBytes)+"{}")
	eventually(t, "the problem is the size", func() bool { return strings.Contains(f.Status().Problem, "more than 1048576 bytes") })
	f.none()
	if st := f.Status(); st.Generation != 2 {
		t.Errorf("another cause of no auth is generation %d, want 2", st.Generation)
	}
}

func TestPolling(t *testing.T) {
	f := newFixture(t, chatGPT("a", "r", "account"), func(o *Options) { o.Poll = 5 * time.Millisecond })
	f.run()
	for i := range 5 {
		replace(t, f.file, chatGPT(fmt.Sprint("token-", i), "r", "account"))
		f.next()
		f.want(fmt.Sprint("token-", i), "account", uint64(i+2))
	}
	if err := os.Remove(f.file); err != nil {
		t.Fatal(err)
	}
	f.next()
	f.none()
}

// TestReloadThatChangesNothing is forwarded to nobody, whoever asks for it.
func TestReloadThatChangesNothing(t *testing.T) {
	content := chatGPT("a", "r", "account")
	f := newFixture(t, content, watching)
	f.run()
	put(t, f.file, content+"\n") // another file, the same credentials
	if f.Reload("SIGHUP") || f.Reload("the command") {
		t.Error("a reload of the same credentials says that they changed")
	}
	f.want("a", "account", 1)
	f.stop()
	put(t, f.file, chatGPT("b", "r", "account"))
	if !f.Reload("SIGHUP") || f.Reload("SIGHUP") {
		t.Error("got no change, or two")
	}
	f.none() // nobody is told after the end
}

func TestReloadIsTold(t *testing.T) {
	f := newFixture(t, "")
	f.run()
	put(t, f.file, chatGPT("b", "r", "account"))
	f.Reload("SIGHUP")
	if c := f.next(); c.Generation != 2 || c.Reason != "SIGHUP" && c.Reason != reasonFile { // the first look of Run may win
		t.Errorf("told %+v", c)
	}
	f.none()
}

// TestEndWhileAFileIsBeingWritten: the end comes at once, and is no logout.
func TestEndWhileAFileIsBeingWritten(t *testing.T) {
	f := newFixture(t, chatGPT("a", "r", "account"), watching)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	put(t, f.file, "")
	if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: got %v, want the cause", err)
	}
	if f.look(ctx.Done(), "x") {
		t.Error("a look that was given up changed the credentials")
	}
	if st := f.Status(); st.Generation != 1 || st.Problem != "" {
		t.Errorf("status: %+v", st)
	}
}

// TestWatcherLatency measures from the rename to Changed, as the contract does.
func TestWatcherLatency(t *testing.T) {
	f := newFixture(t, chatGPT("a", "r", "account"), watching)
	f.run()
	f.watched()
	var took []time.Duration
	for i := range 41 {
		write := replace
		if i%2 == 1 {
			write = put
		}
		content := chatGPT(fmt.Sprint("token-", i), "r", "account")
		begin := time.Now()
		write(t, f.file, content)
		f.next()
		took = append(took, time.Since(begin))
	}
	f.none()
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("from the change to Changed: median %v, fastest %v, slowest %v", median, took[0], took[len(took)-1])
	if median >= 100*time.Millisecond {
		t.Errorf("median %v, want under 100 ms", median)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := New(Options{File: "auth.json", TokenURL: "ftp://user:SECRET@host/", Poll: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"absolute path", "http or https", "poll interval"} {
		wantContains(t, "error", err.Error(), want)
	}
	if strings.Contains(err.Error(), "SECRET") {
		t.Errorf("the error tells a password: %v", err)
	}
}
