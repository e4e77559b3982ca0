//go:build unix

package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// A screen is the user's stdout.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// runTerminal returns a terminal that runs, and the keyboard.
func runTerminal(t *testing.T, f transport.Framing, limit int) (*Terminal, *os.File, *screen) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{}
	term := NewTerminal(r, s, f, limit)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = term.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_, _ = r.Close(), w.Close()
	})
	return term, w, s
}

func connect(t *testing.T, term *Terminal) *terminalPipes {
	t.Helper()
	p, err := term.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = p.stdin.SetReadDeadline(time.Now().Add(20 * time.Second))
	return p
}

// TestInputIsFedAgainFromWhatWasAccepted: a process read both lines and died
// when the host had accepted the first.
func TestInputIsFedAgainFromWhatWasAccepted(t *testing.T) {
	term, keyboard, _ := runTerminal(t, transport.NDJSON, 1000)
	if _, err := keyboard.WriteString("one\ntwo\nthr"); err != nil {
		t.Fatal(err)
	}
	first := connect(t, term)
	r := bufio.NewReader(first.stdin)
	for _, want := range []string{"one\n", "two\n"} {
		if got, err := r.ReadString('\n'); got != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	term.Accepted("4")
	first.disconnect()

	second := connect(t, term)
	if _, err := keyboard.WriteString("ee\n"); err != nil {
		t.Fatal(err)
	}
	_ = keyboard.Close()
	got, err := io.ReadAll(second.stdin)
	if string(got) != "two\nthree\n" || err != nil {
		t.Errorf("the next process got %q, %v", got, err)
	}
	second.disconnect()
}

func TestOnlyWholeFramesReachTheUser(t *testing.T) {
	for _, tt := range []struct {
		framing    transport.Framing
		out1, out2 string
		want       string
	}{
		{transport.NDJSON, "one\ntw", "two\n", "one\ntwo\n"},
		{transport.ContentLength, "Content-Length: 3\r\n\r\noneContent-Length: 3\r\n\r\ntw", "Content-Length: 3\r\n\r\ntwo",
			"Content-Length: 3\r\n\r\noneContent-Length: 3\r\n\r\ntwo"},
	} {
		t.Run(string(tt.framing), func(t *testing.T) {
			term, _, user := runTerminal(t, tt.framing, 1000)
			for _, out := range []string{tt.out1, tt.out2} { // the first process dies within a frame
				p := connect(t, term)
				if _, err := p.stdout.WriteString(out); err != nil {
					t.Fatal(err)
				}
				p.disconnect()
			}
			if got := user.String(); got != tt.want {
				t.Errorf("the user got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestInputIsKeptWithinBounds: what nobody accepts is not read without end.
func TestInputIsKeptWithinBounds(t *testing.T) {
	_, keyboard, _ := runTerminal(t, transport.NDJSON, 1000)
	_ = keyboard.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	n, err := keyboard.Write([]byte(strings.Repeat("x", 8<<20)))
	if err == nil || n > 1000+keptSlack+(256<<10) {
		t.Errorf("%d bytes were taken, %v; want a stop near %d", n, err, 1000+keptSlack)
	}
}
