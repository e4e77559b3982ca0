//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// applicationCommand makes this program the application of the host.
const applicationCommand = "application"

// tickInterval is the rate of the application's own notifications.
const tickInterval = 100 * time.Millisecond

// seen is what the application knows of one conversation.
type seen struct{ first, last, got uint64 }

// serveApplication is the program behind the host. It answers in order, remembers what
// it got, and speaks by itself; it ends with its input.
func serveApplication(stdin io.Reader, stdout io.Writer) error {
	var mu sync.Mutex // guards out: two speak
	out := bufio.NewWriter(stdout)
	say := func(m any) error {
		line, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("encoding a message: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = out.Write(append(line, '\n')) // Flush has its error
		return out.Flush()
	}
	go func() { // ends with the process
		pulse := time.NewTicker(tickInterval)
		for n := uint64(1); ; n++ {
			<-pulse.C
			if say(outgoing{Method: methodTick, Params: tick{PID: os.Getpid(), N: n}}) != nil {
				return
			}
		}
	}()
	known := map[string]*seen{}
	lines := bufio.NewReaderSize(stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a message of %d bytes: %w", len(line), err)
		}
		var m incoming
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("a message is torn: %w: %.200q", err, line)
		}
		var result any
		switch m.Method {
		case "initialize":
			result = map[string]any{"protocolVersion": "2025-06-18", "capabilities": map[string]any{},
				"serverInfo": map[string]string{"name": "chaos", "version": "1"}}
		case methodAsk, methodNote:
			var s statement
			if err := json.Unmarshal(m.Params, &s); err != nil {
				return fmt.Errorf("the params are torn: %w: %.200q", err, line)
			}
			result = account(known, s)
		}
		if m.ID == nil {
			continue
		}
		if err := say(outgoing{ID: m.ID, Result: result}); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

// An outgoing is what the application says.
type outgoing struct {
	ID     json.RawMessage `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params any             `json:"params,omitempty"`
	Result any             `json:"result,omitempty"`
}

// account enters a statement, and makes its reply.
func account(known map[string]*seen, s statement) reply {
	k := known[s.From]
	if k == nil {
		k = &seen{first: s.N}
		known[s.From] = k
	}
	r := reply{statement: s, PID: os.Getpid()}
	if s.N <= k.last {
		r.Disorder = fmt.Sprintf("statement %d came behind %d", s.N, k.last)
	}
	k.last = max(k.last, s.N)
	k.got++
	r.First, r.Got = k.first, k.got
	return r
}
