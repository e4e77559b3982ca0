//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// A terminal is the peer at the host's stdin and stdout.
type terminal struct {
	talk   *conversation
	stdout *bufio.Reader
	reader gate // closed while the user does not read

	mu    sync.Mutex // guards stdin: lines are written whole, in the order of their numbers
	stdin io.Writer
}

// begin initializes, as the first that it says.
func (t *terminal) begin() error {
	if err := t.say(func() []byte { return []byte(initializeRequest("terminal")) }); err != nil {
		return err
	}
	for {
		line, err := t.stdout.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("reading the answer to initialize: %w", err)
		}
		if isInitialized(line) {
			return t.say(func() []byte { return []byte(initializedNotification) })
		}
	}
}

// say sends what statement makes.
func (t *terminal) say(statement func() []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.stdin.Write(append(statement(), '\n')); err != nil {
		return fmt.Errorf("writing to the host's stdin: %w", err)
	}
	return nil
}

// speak sends the statement that is due.
func (t *terminal) speak(due time.Time) {
	if err := t.say(func() []byte { return t.talk.next(due) }); err != nil {
		t.talk.fail("%v", err)
	}
}

// read takes what comes until the host closes its stdout.
func (t *terminal) read(ctx context.Context) error {
	for {
		t.reader.pass(ctx)
		line, err := t.stdout.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the host's stdout, behind %d bytes of a line: %w", len(line), err)
		}
		t.talk.take(line)
	}
}

// burst sends more than the pipes hold, all due at once.
func (t *terminal) burst(statements, bytes int) {
	for range statements {
		now := time.Now()
		if err := t.say(func() []byte { return t.talk.make(now, bytes, false) }); err != nil {
			t.talk.fail("%v", err)
		}
	}
}
