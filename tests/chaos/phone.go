//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

// A phone is a virtual client behind the relay. Its connection outlives every
// socket of the relay and every process of the plugin.
type phone struct {
	talk   *conversation
	client *backend.Client
	mu     sync.Mutex // statements are sent in the order of their numbers
}

func newPhone(ctx context.Context, relay *backend.Backend, name string, r *record, seed uint64) (*phone, error) {
	client, err := relay.Open(backend.ClientOptions{ID: name, StreamID: backend.NewStreamID(), FirstSeq: 1})
	if err != nil {
		return nil, err
	}
	if _, err := client.Initialize(ctx, name); err != nil {
		return nil, fmt.Errorf("beginning the session of %s: %w", name, err)
	}
	return &phone{talk: newConversation(name, remotecontrol, r, seed), client: client}, nil
}

// say sends the statement that is due.
func (p *phone) say(due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.client.Send(p.talk.next(due)); err != nil {
		p.talk.fail("sending: %v", err)
	}
}

// read takes what comes until ctx ends.
func (p *phone) read(ctx context.Context) {
	for {
		m, err := p.client.Receive(ctx)
		if ctx.Err() != nil || errors.Is(err, backend.ErrClosed) {
			return
		}
		if err != nil {
			p.talk.fail("receiving: %v", err)
			return
		}
		p.talk.take(m.Payload)
	}
}
