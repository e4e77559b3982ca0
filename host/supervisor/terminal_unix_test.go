//go:build unix

package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// A monitor is the user's stdout.
type monitor struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *monitor) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *monitor) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// runTerminal returns a terminal that runs, and the keyboard.
func runTerminal(t *testing.T, f transport.Framing, limit int) (*Terminal, *os.File, *monitor) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &monitor{}
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
	p, err := term.pipes()
	if err != nil {
		t.Fatal(err)
	}
	p.start(t.Context())
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
			if err := term.Flush(t.Context()); err != nil {
				t.Fatal(err)
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
	n, err := keyboard.Write([]byte(strings.Repeat("0123456789\n", 1<<20)))
	if err == nil || n > 1000+keptSlack+(256<<10) {
		t.Errorf("%d bytes were taken, %v; want a stop near %d", n, err, 1000+keptSlack)
	}
}

// TestAnOverlongLineDoesNotStopTheInput: enough of it is fed for the plugin to
// refuse it, and what follows.
func TestAnOverlongLineDoesNotStopTheInput(t *testing.T) {
	term, keyboard, _ := runTerminal(t, transport.NDJSON, 1000)
	p := connect(t, term)
	wrote := make(chan error, 1)
	go func() {
		_, err := keyboard.WriteString(strings.Repeat("x", 20<<20) + "\n\n\nnext\n")
		wrote <- err
	}()
	r := bufio.NewReader(p.stdin)
	long, err := r.ReadString('\n')
	if len(long) <= 1002 || len(long) > 1000+keptSlack || err != nil {
		t.Fatalf("%d bytes of the long line, %v", len(long), err)
	}
	if next, err := r.ReadString('\n'); next != "next\n" || err != nil {
		t.Errorf("got %q, %v behind it", next, err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	p.disconnect()
}

// TestAUserWhoDoesNotRead holds up neither the next process nor the host's end,
// and loses nothing of what a dead process had said.
// TestAProcessThatSaysTooMuchIsNotLeftWriting: it would answer probes for ever,
// and the terminal stay silent.
func TestAProcessThatSaysTooMuchIsNotLeftWriting(t *testing.T) {
	for framing, words := range map[transport.Framing]string{
		transport.NDJSON:        strings.Repeat("x", 64<<10),
		transport.ContentLength: strings.Repeat("no header\r\n\r\n", 1<<10),
	} {
		term, _, user := runTerminal(t, framing, 1000)
		p := connect(t, term)
		_ = p.stdout.SetWriteDeadline(time.Now().Add(20 * time.Second))
		var err error
		for n := 0; err == nil && n < 64<<20; {
			var wrote int
			wrote, err = p.stdout.WriteString(words)
			n += wrote
		}
		if !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%v: the process writes on, or waits: %v", framing, err)
		}
		p.disconnect()
		if got := user.String(); got != "" {
			t.Errorf("%v: the user got %d bytes", framing, len(got))
		}
	}
}

func TestAUserWhoDoesNotRead(t *testing.T) {
	in, keyboard, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer keyboard.Close()
	reader, out := io.Pipe()
	term := NewTerminal(in, out, transport.NDJSON, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = term.Run(ctx)
	}()
	line := strings.Repeat("y", 999) + "\n"
	var said int
	for range 2 {
		p := connect(t, term)
		_ = p.stdout.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n := 0
		for {
			if _, err := p.stdout.WriteString(line); err != nil {
				break // the pipe is full: nobody reads
			}
			n++
		}
		frames := p.disconnect() // returns although nobody reads
		if frames < n {
			t.Errorf("%d of %d lines were passed on", frames, n)
		}
		said += frames
	}
	got := make(chan int)
	go func() {
		b, _ := io.ReadAll(reader)
		got <- bytes.Count(b, []byte("\n"))
	}()
	if err := term.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
	_ = out.Close()
	if n := <-got; n != said {
		t.Errorf("the user got %d lines, want the %d that were passed on", n, said)
	}
}

func TestTheEndDoesNotWaitForAUser(t *testing.T) {
	in, keyboard, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer keyboard.Close()
	reader, out := io.Pipe()
	term := NewTerminal(in, out, transport.NDJSON, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = term.Run(ctx)
	}()
	p := connect(t, term)
	if _, err := p.stdout.WriteString("nobody reads this\n"); err != nil {
		t.Fatal(err)
	}
	p.disconnect()
	cancel()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("Run waits for a user who does not read")
	}
	_ = reader.Close() // ends the write that was left behind
}
