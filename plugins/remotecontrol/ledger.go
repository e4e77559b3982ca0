package remotecontrol

// A place is a position in everything that the relay sent, over all streams.
type place struct {
	n      uint64 // counts envelopes, over processes
	cursor string // subscribe cursor; "" if there was none so far
}

// A ledger knows how far the relay need not send again after a crash: up to
// the latest cursor before which everything was handed to the host. Streams
// are handed over independently, so that may be far behind the last envelope;
// it holds memory only for envelopes that are on their way. It does no locking.
type ledger struct {
	n           uint64 // of the last envelope
	safe        place
	first, last *ledgerEntry
}

// A ledgerEntry is one envelope whose message is on its way to the host.
type ledgerEntry struct {
	place      place
	behind     place // the latest place of the envelopes that follow and are done; n 0: none
	prev, next *ledgerEntry
}

// arrived counts an envelope that needs nothing more.
func (l *ledger) arrived(cursor string) {
	l.n++
	l.settle(l.last, place{l.n, cursor})
}

// begin counts an envelope that ends with [ledger.end].
func (l *ledger) begin(cursor string) *ledgerEntry {
	l.n++
	e := &ledgerEntry{place: place{l.n, cursor}, prev: l.last}
	if l.last != nil {
		l.last.next = e
	} else {
		l.first = e
	}
	l.last = e
	return e
}

// end says that the message of e is with the host, or will never be.
func (l *ledger) end(e *ledgerEntry) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		l.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		l.last = e.prev
	}
	l.settle(e.prev, e.ended())
}

// ended is the place that is reached when e has ended, if all before it have.
func (e *ledgerEntry) ended() place {
	if e.behind.cursor != "" {
		return e.behind
	}
	return e.place
}

// settle notes a place behind an entry, or as safe if there is none before it.
func (l *ledger) settle(before *ledgerEntry, p place) {
	switch {
	case p.cursor == "":
	case before == nil:
		l.safe = p
	default:
		before.behind = p
	}
}

// after is the safe place once e has ended.
func (l *ledger) after(e *ledgerEntry) place {
	if p := e.ended(); e == l.first && p.cursor != "" {
		return p
	}
	return l.safe
}
