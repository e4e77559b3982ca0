package backend

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A delivery is one message, or the end, of a virtual client on its way to the
// host.
type delivery struct {
	client  *Client
	kind    EnvelopeType // clientMessage or clientClosed
	seq     *uint64
	payload []byte
	piece   int // bytes of a segment; 0: travels whole

	position uint64 // in the ledger; 0 until it has been sent to its end once
	spread   bool   // each segment has a cursor of its own

	link *link // that carries it now
	sent int   // segments that link has carried
}

func (d *delivery) segments() int {
	if d.piece == 0 {
		return 1
	}
	return ceilDiv(len(d.payload), d.piece)
}

// A ledger keeps what was sent to hosts until a cursor says that it arrived. A
// position is given when the last frame of a message goes out for the first
// time, so that a cursor never covers a message that is half sent, even if
// segments of several clients alternate.
type ledger struct {
	last uint64      // position given last
	kept []*delivery // ascending positions
	size int         // payload bytes of kept
	lost uint64      // everything up to here was thrown away for lack of room
}

// enter gives d a position. It takes up positions for cursors of segments.
func (g *ledger) enter(d *delivery, positions int, limit int) {
	g.last += uint64(positions)
	d.position = g.last
	g.kept = append(g.kept, d)
	g.size += len(d.payload)
	for g.size > limit && len(g.kept) > 1 {
		g.lost = g.kept[0].position
		g.size -= len(g.kept[0].payload)
		g.kept = g.kept[1:]
	}
}

// confirm forgets what a host has, and returns what it lacks.
func (g *ledger) confirm(cursor uint64, served func(*Client) bool) []*delivery {
	var lacking []*delivery
	g.kept = slices.DeleteFunc(g.kept, func(d *delivery) bool {
		if !served(d.client) {
			return false
		}
		if d.position <= cursor {
			g.size -= len(d.payload)
			return true
		}
		lacking = append(lacking, d)
		return false
	})
	return lacking
}

// cursor is how a position is told to a host.
func (b *Backend) cursor(position uint64) string {
	if position == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d", b.epoch, position)
}

// parseCursor is the inverse of cursor.
func (b *Backend) parseCursor(cursor string) (uint64, error) {
	digits, ours := strings.CutPrefix(cursor, b.epoch+":")
	position, err := strconv.ParseUint(digits, 10, 64)
	if !ours || err != nil || position == 0 || position > b.ledger.last {
		return 0, fmt.Errorf("%q is no cursor of this backend", shortened(cursor))
	}
	return position, nil
}

// frame encodes what comes next of d on l and reports whether d is complete
// with it. b.mu is held.
func (b *Backend) frame(l *link, d *delivery) (text []byte, complete bool) {
	if d.link != l {
		d.link, d.sent = l, 0
	}
	e := clientEnvelope{kind: d.kind, clientID: d.client.id, streamID: d.client.stream, seq: d.seq, message: d.payload}
	segments := d.segments()
	complete = d.sent+1 == segments
	if d.position == 0 && b.faults.early && segments > 1 {
		d.spread = true
		b.ledger.enter(d, segments, b.opts.RetainBytes)
		d.client.leave(d)
	} else if d.position == 0 && complete {
		b.ledger.enter(d, 1, b.opts.RetainBytes)
		d.client.leave(d)
	}
	if complete || d.spread {
		e.cursor = b.cursor(d.position - uint64(segments-1-d.sent))
	}
	if d.piece > 0 {
		segment := cut(d.payload, d.piece, d.sent)
		e.kind, e.segment, e.message = clientMessageChunk, &segment, nil
	}
	d.sent++
	if complete {
		l.sentUpTo = max(l.sentUpTo, d.position)
	}
	return e.encode(), complete
}
