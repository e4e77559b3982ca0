package supervisor

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/transporthost/transporthost/host/internal/sandbox"
)

const (
	// wordBytes is what is kept of a line on stderr.
	wordBytes = 200
	// wordsGrace is how long what a dead process said is waited for. A grandchild
	// may hold its stderr open.
	wordsGrace = 200 * time.Millisecond
)

// lastWords pass a process's stderr on and remember what may say why it ended.
// Lines of a plugin's log are no such words.
type lastWords struct {
	r     *os.File
	ended chan struct{} // closed when there is no more
	once  sync.Once

	mu     sync.Mutex // guards what follows
	line   []byte     // the last one, so far as it is there
	last   string     // the last whole line
	fatal  string     // the last one that calls itself the end
	memory bool       // some line says that there is no memory
}

func (w *lastWords) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := p[:n]; len(rest) > 0; {
		part, behind, whole := bytes.Cut(rest, []byte("\n"))
		w.line = append(w.line, part[:min(len(part), max(0, wordBytes-len(w.line)))]...)
		if whole {
			w.endLineLocked()
		}
		rest = behind
	}
	if err != nil {
		w.endLineLocked()
		w.once.Do(func() { close(w.ended) })
	}
	return n, err
}

func (w *lastWords) Close() error { return w.r.Close() }

func (w *lastWords) endLineLocked() {
	text := line(string(w.line), wordBytes)
	w.line = w.line[:0]
	if text == "" || text[0] == '{' {
		return
	}
	w.last = text
	if fatal := strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: "); fatal && w.fatal == "" {
		w.fatal = text
	}
	lower := strings.ToLower(text)
	w.memory = w.memory || slices.ContainsFunc(noMemory(), func(s string) bool { return strings.Contains(lower, s) })
}

// noMemory are the words of those who get none: Go, C and its threads, C++,
// Rust, Python, JavaScript, sanitizers.
func noMemory() []string {
	return []string{"out of memory", "cannot allocate memory", "failed to create new os thread", "pthread_create failed",
		"bad_alloc", "memory allocation of", "memoryerror", "failed to allocate"}
}

// cause is what the words add to how the process ended.
func (w *lastWords) cause(p sandbox.Policy) string {
	t := time.NewTimer(wordsGrace)
	defer t.Stop()
	select {
	case <-w.ended:
	case <-t.C:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	said := w.last
	if w.fatal != "" {
		said = w.fatal
	}
	switch {
	case w.memory && !p.Off:
		return ": it ran out of memory; its limit is " + sandbox.Bytes(p.Memory) + " (memory in sandbox of the transport)"
	case w.memory:
		return ": it ran out of memory"
	case said != "":
		return ": " + said
	}
	return ""
}
