//go:build linux

package main

import (
	"sync"
	"time"
)

// censusGrace is how long the host may take to learn that a peer has gone.
const censusGrace = 2 * time.Second

// A life is that of one socket, from before its dial until after its end.
type life struct{ begun, served, ended time.Time }

// A census knows which sockets the host must have, and which it may have.
type census struct {
	mu    sync.Mutex // guards what follows
	next  int
	lives map[int]*life
}

func newCensus() *census { return &census{lives: map[int]*life{}} }

// begin enters a socket that is about to be dialled.
func (c *census) begin() (id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	c.lives[c.next] = &life{begun: time.Now()}
	return c.next
}

// served notes that the socket had an answer: the host has it.
func (c *census) served(id int) { c.note(id, func(l *life) { l.served = time.Now() }) }

// end notes that the socket is closed, or about to be.
func (c *census) end(id int) { c.note(id, func(l *life) { l.ended = time.Now() }) }

func (c *census) note(id int, change func(*life)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.lives[id]; l != nil {
		change(l)
	}
	for id, l := range c.lives {
		if !l.ended.IsZero() && time.Since(l.ended) > 2*censusGrace {
			delete(c.lives, id)
		}
	}
}

// bounds returns how many sockets a host must and may show in a status that was
// taken between from and to.
func (c *census) bounds(from, to time.Time) (least, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lives {
		if !l.served.IsZero() && l.served.Before(from) && (l.ended.IsZero() || l.ended.After(to)) {
			least++
		}
		if l.begun.Before(to) && (l.ended.IsZero() || l.ended.After(from.Add(-censusGrace))) {
			most++
		}
	}
	return least, most
}
