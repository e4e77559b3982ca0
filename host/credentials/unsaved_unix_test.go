//go:build unix

package credentials

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestUnsavedRefresh: the new tokens are used although the disk is full, not
// given up for the used ones in the file, and saved as soon as that is possible.
func TestUnsavedRefresh(t *testing.T) {
	server := newTokenServer(t)
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use, func(o *Options) { o.Poll = 5 * time.Millisecond })
	var mu sync.Mutex
	full := true
	f.write = func(file string, content []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if full {
			return errors.New("no space left")
		}
		return writeFile(file, content)
	}
	f.run()
	f.want("access-1", "account", 2)
	f.next()
	if f.Reload("test") {
		t.Error("a reload fell back to the used tokens")
	}
	a, _ := f.snapshot()
	if err := f.refresh(t.Context(), a); err != nil { // with the token that is in no file
		t.Error(err)
	}
	f.want("access-2", "account", 3)
	f.next()
	mu.Lock()
	full = false
	mu.Unlock()
	eventually(t, "the file has the new tokens", func() bool { return readAuth(f.file).auth.tokens.access == "access-2" })
	f.none()
	if got := server.requests(); len(got) != 2 || !strings.Contains(got[1], `"refresh-1"`) {
		t.Errorf("the token endpoint got %q", got)
	}
}

// away makes file unreadable, be it by root, until the function that it returns
// is called: it becomes a link to itself.
func away(t testing.TB, file string) (back func()) {
	t.Helper()
	kept := file + ".kept"
	if err := errors.Join(os.Rename(file, kept), os.Symlink(file, file)); err != nil {
		t.Error(err) // not Fatal: the token endpoint calls it
	}
	return func() {
		t.Helper()
		if err := os.Rename(kept, file); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnreadableWhenSaving: what a refresh brought is not taken for a logout
// because the file cannot be read at that moment. The old refresh token is used
// up: what was lost here would sign the user out.
func TestUnreadableWhenSaving(t *testing.T) {
	server := newTokenServer(t)
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use, func(o *Options) { o.Poll = 5 * time.Millisecond })
	var back func()
	answer := server.answer
	server.answer = func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 1 {
			back = away(t, f.file)
		}
		answer(w, r, n)
	}
	f.run()
	f.want("access-1", "account", 2)
	f.next()
	if f.Reload("test") {
		t.Error("a reload gave up the new tokens")
	}
	a, _ := f.snapshot()
	if err := f.refresh(t.Context(), a); err != nil { // with the token that is in no file
		t.Error(err)
	}
	f.want("access-2", "account", 3)
	f.next()
	const told = "the refreshed tokens are not saved, and lost if the host ends now: "
	if got := f.Status().Unsaved; !strings.HasPrefix(got, told) {
		t.Errorf("status: %q, want %q and why", got, told)
	}
	wantContains(t, "log", f.log.String(), "[ERROR] saving the refreshed credentials; they are lost if the host ends now")
	back()
	eventually(t, "the file has the new tokens", func() bool { return readAuth(f.file).auth.tokens.access == "access-2" })
	eventually(t, "the status tells no more of it", func() bool { return f.Status().Unsaved == "" })
	f.none()
	if got := server.requests(); len(got) != 2 || !strings.Contains(got[1], `"refresh-1"`) {
		t.Errorf("the token endpoint got %q", got)
	}
}

// TestUnsavedIsSavedAtTheEnd: the last chance for what is nowhere else.
func TestUnsavedIsSavedAtTheEnd(t *testing.T) {
	server := newTokenServer(t)
	f := newFixture(t, chatGPT("old", "r", "account", stale), server.use) // polls once an hour
	var back func()
	answer := server.answer
	server.answer = func(w http.ResponseWriter, r *http.Request, n int) {
		back = away(t, f.file)
		answer(w, r, n)
	}
	f.run()
	f.want("access-1", "account", 2)
	back()
	f.stop()
	if got := readAuth(f.file).auth.tokens; got.access != "access-1" || got.refresh != "refresh-1" {
		t.Errorf("the file has the access token %q after the end", string(got.access))
	}
}

// TestSignedOutWhileUnsaved: a file that is gone, or another's, is a wish, and
// what is in no file goes.
func TestSignedOutWhileUnsaved(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, file string)
		want   string // the access token; "" for none
	}{
		{"deleted", func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		}, ""},
		{"another account", func(t *testing.T, file string) { replace(t, file, chatGPT("new", "r3", "other")) }, "new"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newTokenServer(t)
			f := newFixture(t, chatGPT("old", "r", "account", stale), server.use)
			f.write = func(string, []byte) error { return errors.New("no space left") }
			f.run()
			f.want("access-1", "account", 2)
			tt.change(t, f.file)
			if !f.Reload("test") {
				t.Error("the change was not noticed")
			}
			if a, _ := f.snapshot(); string(a.tokens.access) != tt.want {
				t.Errorf("the access token is %q, want %q", string(a.tokens.access), tt.want)
			}
			if got := f.Status().Unsaved; got != "" {
				t.Errorf("status still tells of %q", got)
			}
		})
	}
}

// TestUnreadableBeforeARefresh uses no refresh token, and is forgotten when the
// file is back: it was no answer of the token endpoint.
func TestUnreadableBeforeARefresh(t *testing.T) {
	server := newTokenServer(t)
	f := newFixture(t, chatGPT("old", "r", "account"), server.use)
	a, _ := f.snapshot()
	back := away(t, f.file)
	wantText(t, f.refresh(t.Context(), a), textSignedOut)
	back()
	f.Reload("test")
	if err := f.refresh(t.Context(), a); err != nil {
		t.Errorf("the file is back: %v", err)
	}
	if got := len(server.requests()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}
