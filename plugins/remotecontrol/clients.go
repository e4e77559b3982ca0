package remotecontrol

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	idleTimeout = 10 * time.Minute // without a message or a ping
	// leavingTimeout is how long a peer that said goodbye keeps a connection
	// whose last messages the host does not take.
	leavingTimeout = 30 * time.Second
)

// clients are the virtual clients of this process, and with them everything
// that survives a relay link: numbers, outboxes, cursors. At most one link is
// served at a time.
//
// Goroutines run only while they have something to do: per virtual client one
// that gives messages to the host, per stream one that moves messages of the
// host into the outbox. None of them holds up the reader or the writer of the
// link.
type clients struct {
	host       *pluginsdk.Host
	profile    profile
	relay      string
	log        hclog.Logger
	maxMessage int
	maxClients int
	opens      *rate.Limiter // of virtual clients
	tally      tally
	wake       chan struct{}   // one slot: the ring has something
	life       context.Context // of the goroutines, which no caller's context spans; ended by leave
	leave      context.CancelCauseFunc
	wg         sync.WaitGroup

	// Of the reader of the link.
	assembler assembler

	mu         sync.Mutex                    // guards what follows; held for no longer than bookkeeping takes
	streams    map[string]map[string]*stream // by client id and stream id
	idle       list.List                     // streams without virtual client, the one heard longest ago first
	legacy     map[string]string             // streams of clients that do not name one, by client id
	leaving    map[*virtualClient]struct{}   // without a stream, until the host has what they said
	active     int                           // virtual clients, with those
	ledger     ledger
	subscribed string      // the last cursor of an envelope that was taken in
	inbound    int         // bytes on their way to the host
	small      pool        // of what outboxes hold
	large      pool        // of those that hold more than a share of small
	ring       ring        // of those that have something to send
	segments   ring        // of those that have a segment to send next
	overtakes  int         // envelopes that were taken since the last segment
	stale      []streamKey // whose assemblies are to be dropped
	linked     bool        // a link is served
	unlinked   time.Time   // when the last one ended; at first, when this table was made
	closed     bool        // nothing starts any more
}

// newClients makes an empty table. It starts nothing. relay is the address
// that connections show as their peer's.
func newClients(host *pluginsdk.Host, p profile, relay string, maxClients int, log hclog.Logger) *clients {
	c := &clients{
		host: host, profile: p, relay: relay, log: log,
		maxMessage: host.Params().MaxMessageBytes,
		small:      pool{max: retainedBytes / 2}, large: pool{max: retainedBytes / 2},
		maxClients: maxClients, opens: newOpens(),
		wake: make(chan struct{}, 1), unlinked: time.Now(),
		streams: make(map[string]map[string]*stream), legacy: make(map[string]string),
		leaving: make(map[*virtualClient]struct{}),
	}
	c.life, c.leave = context.WithCancelCause(context.Background())
	c.assembler = newAssembler(c.beginAssembly, c.endAssembly)
	return c
}

// adopt takes over connections of an earlier process. It is called before the
// first serve. A connection that cannot be read is left to the host, which
// closes it. The error is the host's end.
func (c *clients) adopt(resume []pluginsdk.Resume) error {
	last := make(map[pluginsdk.ResumeKey]pluginsdk.ConnID, len(resume))
	for _, r := range resume {
		last[r.Key] = max(last[r.Key], r.Conn)
	}
	for _, r := range resume {
		if r.Conn != last[r.Key] {
			continue // its peer has initialized again: the host closes it
		}
		vc, err := c.revive(r)
		if err != nil {
			c.log.Warn("not taking over a connection of an earlier process", "connection", r.Conn, "error", err)
			continue
		}
		_, err = c.host.Adopt(r, vc)
		c.mu.Lock()
		if vc.bound = err == nil; err != nil {
			c.closeLocked(vc)
		} else {
			c.kickLocked(vc.stream)
		}
		c.mu.Unlock()
		if err != nil {
			return fmt.Errorf("taking over connection %d: %w", r.Conn, err)
		}
	}
	return nil
}

// revive rebuilds the stream of a connection.
func (c *clients) revive(r pluginsdk.Resume) (*virtualClient, error) {
	key, err := parseResumeKey(r.Key)
	if err != nil {
		return nil, err
	}
	n, err := decodeNote(r.Cursor)
	if err != nil {
		return nil, err
	}
	point, err := decodeCheckpoint(r.Checkpoint)
	if err != nil {
		return nil, fmt.Errorf("decoding the checkpoint of a connection: %w", err)
	}
	point.acknowledged(r.NextSeq)

	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streamLocked(key)
	if s.vc != nil {
		return nil, errors.New("another connection has the same stream")
	}
	vc := &virtualClient{clients: c, stream: s, note: n, heard: time.Now()}
	vc.told = max(r.NextSeq, 1) - 1
	s.out.resume(point.entries, point.next, point.host)
	c.attachLocked(s, vc)
	c.rechargeLocked(s)
	if n.Legacy {
		c.legacy[key.client] = key.stream
	}
	for _, p := range []place{{n.N, n.Cursor}, point.place} {
		if c.ledger.n = max(c.ledger.n, p.n); p.cursor != "" && p.n > c.ledger.safe.n {
			c.ledger.safe, c.subscribed = p, p.cursor
		}
	}
	return vc, nil
}

// cursor is where the relay should go on, or "" if it is not known. What came
// before is in the hands of this process: it survives the link, though not a
// crash; see [ledger] for that.
func (c *clients) cursor() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subscribed
}

// len is the number of virtual clients.
func (c *clients) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// close ends every virtual client and waits for the goroutines. Nothing may be
// called afterwards. A process that another one is to follow calls detach.
func (c *clients) close(reason pluginsdk.CloseReason) {
	for _, vc := range c.shut() {
		vc.conn.Close(reason)
	}
	c.leave(pluginsdk.ErrConnClosed)
	c.wg.Wait()
}

// detach is close for a process whose connections the next one adopts: they
// stay open.
func (c *clients) detach() {
	c.shut()
	c.leave(pluginsdk.ErrStopping)
	c.wg.Wait()
}

// shut keeps anything new from starting, and returns the virtual clients that
// have a connection.
func (c *clients) shut() []*virtualClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var vcs []*virtualClient
	for s := range c.eachLocked() {
		if s.vc != nil && s.vc.bound {
			vcs = append(vcs, s.vc)
		}
	}
	for vc := range c.leaving {
		vcs = append(vcs, vc)
	}
	return vcs
}

func (c *clients) eachLocked() func(yield func(*stream) bool) {
	return func(yield func(*stream) bool) {
		for _, streams := range c.streams {
			for _, s := range streams {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// streamLocked returns the stream with this key. A new one counts as idle.
func (c *clients) streamLocked(key streamKey) *stream {
	if s := c.streams[key.client][key.stream]; s != nil {
		return s
	}
	s := &stream{key: key, out: newOutbox(key)}
	if c.streams[key.client] == nil {
		c.streams[key.client] = make(map[string]*stream)
	}
	c.streams[key.client][key.stream] = s
	c.idleLocked(s)
	return s
}

// idleLocked remembers a stream without virtual client as the last to be
// forgotten.
func (c *clients) idleLocked(s *stream) {
	s.heard = time.Now()
	if s.idle != nil {
		c.idle.MoveToBack(s.idle)
		return
	}
	s.idle = c.idle.PushBack(s)
	for c.idle.Len() > maxForgotten {
		oldest := c.idle.Remove(c.idle.Front()).(*stream)
		oldest.idle = nil
		c.freeLocked(oldest)
		delete(c.streams[oldest.key.client], oldest.key.stream)
		if len(c.streams[oldest.key.client]) == 0 {
			delete(c.streams, oldest.key.client)
		}
	}
}

// attachLocked gives a stream its virtual client.
func (c *clients) attachLocked(s *stream, vc *virtualClient) {
	s.vc = vc
	c.active++
	if s.idle != nil {
		c.idle.Remove(s.idle)
		s.idle = nil
	}
}

// freeLocked drops what a stream has to send, sent or not. Its numbers stay.
func (c *clients) freeLocked(s *stream) {
	s.out.clear()
	s.answers, s.pong, s.note = nil, noPong, false
	s.left()
	c.withdrawLocked(s)
	c.rechargeLocked(s)
}

// closeLocked ends a virtual client and frees what its stream has to send. The
// caller closes the connection once it holds no lock.
func (c *clients) closeLocked(vc *virtualClient) {
	if vc.closed {
		return
	}
	attached := vc.stream.vc == vc
	if c.parkLocked(vc); attached {
		c.freeLocked(vc.stream)
	}
}

// leaveLocked takes a virtual client off its stream because its peer wants to
// hear nothing more of it, and frees what the stream has to send. What the peer
// has said before still goes to the host. It is false if that is nothing: the
// virtual client has ended, and the caller closes the connection once it holds
// no lock.
func (c *clients) leaveLocked(vc *virtualClient, reason pluginsdk.CloseReason) bool {
	if !vc.delivers || vc.ending != nil {
		c.closeLocked(vc)
		return false
	}
	vc.leaving, vc.leftSince = &reason, time.Now()
	vc.pending = nil
	c.leaving[vc] = struct{}{}
	c.detachLocked(vc)
	c.freeLocked(vc.stream)
	return true
}

// parkLocked ends a virtual client. What its outbox holds still goes out.
func (c *clients) parkLocked(vc *virtualClient) {
	vc.closed = true
	vc.pending = nil
	vc.dropQueueLocked()
	c.active--
	delete(c.leaving, vc)
	if vc.stream.vc == vc {
		c.detachLocked(vc)
	}
	c.rememberLocked()
}

// detachLocked is the reverse of attachLocked.
func (c *clients) detachLocked(vc *virtualClient) {
	s := vc.stream
	s.vc = nil
	if c.legacy[s.key.client] == s.key.stream {
		delete(c.legacy, s.key.client)
	}
	c.stale = append(c.stale, s.key)
	c.withdrawLocked(s)
	c.idleLocked(s)
}

// rememberLocked stores how far the relay was read with some other connection:
// after a crash, what the ended one had taken in is else read again.
func (c *clients) rememberLocked() {
	if c.ledger.safe.cursor == "" || c.closed {
		return
	}
	for s := range c.eachLocked() {
		if vc := s.vc; vc != nil && vc.bound && vc.ending == nil {
			s.note = true
			c.kickLocked(s)
			return
		}
	}
}

// sweep ends the virtual clients that were not heard for too long.
func (c *clients) sweep(now time.Time) {
	type ended struct {
		vc     *virtualClient
		reason pluginsdk.CloseReason
	}
	var over []ended
	c.mu.Lock()
	for s := range c.eachLocked() {
		vc := s.vc
		switch {
		case vc == nil:
			if now.Sub(s.heard) >= idleTimeout {
				c.freeLocked(s) // nobody will acknowledge it
			}
		case vc.ending == nil && now.Sub(vc.heard) >= idleTimeout:
			over = append(over, ended{vc, pluginsdk.CloseReason{Code: pluginsdk.CloseIdle, Text: "nothing was heard for " + idleTimeout.String()}})
		}
	}
	for vc := range c.leaving {
		if now.Sub(vc.leftSince) >= leavingTimeout {
			over = append(over, ended{vc, *vc.leaving})
		}
	}
	for _, e := range over {
		c.closeLocked(e.vc)
	}
	c.mu.Unlock()
	for _, e := range over {
		e.vc.conn.Close(e.reason)
	}
}

func (c *clients) beginAssembly() *ledgerEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ledger.begin("")
}

func (c *clients) endAssembly(e *ledgerEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger.end(e)
}
