//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// smallBytes bounds most statements; one in largeEvery has up to largeBytes,
	// which is cut into pieces on the link and into segments on the relay.
	smallBytes = 300
	largeBytes = 200 << 10
	largeEvery = 250 // rarer than one in a hundred: p99 is that of the small ones
	noteEvery  = 10  // statements are notes
)

// A conversation is the numbered statements of one peer on one connection, and
// what came back. It finds whatever is lost, doubled, reordered or torn.
type conversation struct {
	name   string
	part   part
	record *record

	mu      sync.Mutex // guards what follows
	random  *rand.Rand
	sent    uint64               // number of the last statement
	open    map[uint64]statement // requests without an answer
	due     map[uint64]time.Time // of them
	refused []uint64             // requests that were answered with an error, ascending
	app     int                  // the process that answered last
	first   uint64               // statement that it got
	last    uint64               // statement that it answered
	ticks   tick                 // the last one
	over    bool                 // the connection has ended, as it may
}

func newConversation(name string, p part, r *record, seed uint64) *conversation {
	c := &conversation{name: name, part: p, record: r, random: rand.New(rand.NewPCG(seed, 1)),
		open: map[uint64]statement{}, due: map[uint64]time.Time{}}
	r.join(c)
	return c
}

// next makes the statement that is due now, or was at due.
func (c *conversation) next(due time.Time) []byte {
	c.mu.Lock()
	size := c.random.IntN(smallBytes)
	if c.random.IntN(largeEvery) == 0 {
		size = c.random.IntN(largeBytes)
	}
	note := c.random.IntN(noteEvery) == 0
	c.mu.Unlock()
	return c.make(due, size, note)
}

// make makes a request, or a note, of a certain size.
func (c *conversation) make(due time.Time, size int, note bool) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent++
	s := statement{From: c.name, N: c.sent, Pad: pad(c.name, c.sent, size)}
	c.record.count(func(n *counts) { n.statements++ })
	if note {
		return fmt.Appendf(nil, `{"jsonrpc":"2.0","method":%q,"params":{"from":%q,"n":%d,"pad":%q}}`, methodNote, s.From, s.N, s.Pad)
	}
	c.open[s.N], c.due[s.N] = s, due
	return fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":{"from":%q,"n":%d,"pad":%q}}`, s.N, methodAsk, s.From, s.N, s.Pad)
}

// take judges a message that came, and reports whether it was an answer.
func (c *conversation) take(payload []byte) (answer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var m incoming
	if err := json.Unmarshal(payload, &m); err != nil {
		c.fail("a message is torn: %v: %.300q", err, payload)
		return false
	}
	switch m.Method {
	case "":
	case methodTick:
		c.tick(m.Params)
		return false
	default:
		return false // the host's own words: a cancellation
	}
	n, err := strconv.ParseUint(string(m.ID), 10, 64)
	if err != nil {
		c.fail("an answer to nobody: %.300q", payload)
		return true
	}
	s, asked := c.open[n]
	if !asked {
		what := "an answer to what was never asked"
		if n > 0 && n <= c.sent {
			what = "a second answer"
		}
		c.fail("%s, %d: %.300q", what, n, payload)
		return true
	}
	due := c.due[n]
	delete(c.open, n)
	delete(c.due, n)
	if m.Error != nil {
		c.refuse(n, due, m.Error.Code, m.Error.Message)
		return true
	}
	var r reply
	if err := json.Unmarshal(m.Result, &r); err != nil || r.statement != s {
		c.fail("the answer to %d is torn, or another one's (%v): %.300q", n, err, payload)
		return true
	}
	c.follow(r)
	c.record.answered(row(c.part), c.part, due)
	return true
}

// follow judges the order of an answer. c.mu is held.
func (c *conversation) follow(r reply) {
	if r.Disorder != "" {
		c.fail("the application says: %s", r.Disorder)
	}
	if r.PID != c.app {
		c.app, c.first, c.last = r.PID, r.First, 0
	}
	if r.First != c.first || r.N <= c.last {
		c.fail("answer %d comes behind that to %d; process %d got %d first, and said %d before", r.N, c.last, r.PID, r.First, c.first)
	}
	c.last = r.N
	missing := uint64(0) // requests that this process never got, with an error that says so
	for _, n := range c.refused {
		if n >= r.First && n < r.N {
			missing++
		}
	}
	if r.Got+missing != r.N-r.First+1 {
		c.fail("with statement %d the application has %d of %d, and %d were refused: the rest is lost", r.N, r.Got, r.N-r.First+1, missing)
	}
	for n := range c.open {
		if n < r.N {
			c.fail("the answer to %d overtook that to %d", r.N, n)
			return
		}
	}
}

// refuse judges an answer with an error. c.mu is held.
func (c *conversation) refuse(n uint64, due time.Time, code int, text string) {
	if i, there := slices.BinarySearch(c.refused, n); !there {
		c.refused = slices.Insert(c.refused, i, n)
	}
	switch {
	case !c.record.exposure.touched(application, due):
		c.fail("request %d is answered with error %d, %q, although nobody touched the application", n, code, text)
	case !strings.Contains(text, "SIGKILL"):
		c.fail("request %d is answered with error %d, %q, which does not name how the application ended", n, code, text)
	}
	c.record.count(func(t *counts) { t.refused++ })
}

// tick judges a notification of the application: none may be missing. c.mu is
// held.
func (c *conversation) tick(params json.RawMessage) {
	var t tick
	if err := json.Unmarshal(params, &t); err != nil {
		c.fail("a notification is torn: %v: %.300q", err, params)
		return
	}
	c.record.count(func(n *counts) { n.ticks++ })
	if t.PID == c.ticks.PID && t.N != c.ticks.N+1 {
		c.fail("notification %d of process %d comes behind %d", t.N, t.PID, c.ticks.N)
	}
	c.ticks = t
}

// outstanding returns how many requests wait for an answer that were due before
// t, and since when the oldest does.
func (c *conversation) outstanding(t time.Time) (n int, oldest time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return 0, oldest
	}
	for _, due := range c.due {
		if due.Before(t) {
			n++
			if oldest.IsZero() || due.Before(oldest) {
				oldest = due
			}
		}
	}
	return n, oldest
}

// end says that the connection is gone, and nothing more is awaited.
func (c *conversation) end() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.record.leave(c)
}

func (c *conversation) fail(format string, args ...any) {
	c.record.fail("%s: %s", c.name, fmt.Sprintf(format, args...))
}
