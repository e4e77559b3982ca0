package application

import (
	"fmt"
	"slices"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// maxPending bounds the requests of one peer that a program may leave
	// without an answer. More are refused as overload.
	maxPending = 1 << 14
	// maxCancelled bounds the cancelled requests of one peer whose answer is
	// still brought if it comes: MCP's servers need not answer them.
	maxCancelled = 256
	// maxIDBytes bounds what is remembered of a request: its id, and the token
	// of its progress. Real ones are UUIDs at most.
	maxIDBytes = 1 << 10
)

// longID is what a request with an id over the limit is answered with.
func longID() string {
	return fmt.Sprintf("Invalid Request: an id or a progress token has more than %d bytes", maxIDBytes)
}

// A pending is the open requests of one connection, by their ids as spelled.
// The zero value is ready. It does no locking.
type pending struct {
	open      map[string]bool // true: cancelled
	cancelled []string        // the same, oldest first
}

// live is the number of those that somebody waits for.
func (s *pending) live() int { return len(s.open) - len(s.cancelled) }

// ask enters a request and reports whether it is a new one.
func (s *pending) ask(id []byte) bool {
	if cancelled, again := s.open[string(id)]; again {
		if cancelled { // the sender does not wait for the old one
			s.uncancel(string(id))
			s.open[string(id)] = false
		}
		return cancelled
	}
	if s.open == nil {
		s.open = make(map[string]bool)
	}
	s.open[string(id)] = false
	return true
}

// cancel takes a request out of those that somebody waits for, and reports
// whether it was one of them.
func (s *pending) cancel(id []byte) bool {
	cancelled, ok := s.open[string(id)]
	if !ok || cancelled {
		return false
	}
	if len(s.cancelled) == maxCancelled {
		delete(s.open, s.cancelled[0])
		s.cancelled = s.cancelled[1:]
	}
	s.open[string(id)] = true
	s.cancelled = append(s.cancelled, string(id))
	return true
}

// answer takes a request out. known says that it was there.
func (s *pending) answer(id []byte) (known, cancelled bool) {
	cancelled, known = s.open[string(id)]
	if known {
		delete(s.open, string(id))
	}
	if cancelled {
		s.uncancel(string(id))
	}
	return known, cancelled
}

func (s *pending) uncancel(id string) {
	if i := slices.Index(s.cancelled, id); i >= 0 {
		s.cancelled = slices.Delete(s.cancelled, i, i+1)
	}
}

// namesRequest returns where a notification of this method names a request of
// its sender that it cancels; nil if it does not.
func namesRequest(method []byte) []string {
	switch string(method) {
	case "notifications/cancelled": // MCP
		return []string{"params", "requestId"}
	case "$/cancelRequest": // language servers
		return []string{"params", "id"}
	}
	return nil
}

// cancels returns the id of the request that a message cancels, or nil.
func cancels(p []byte, m transport.Message) []byte {
	if m.Kind != transport.Notification {
		return nil
	}
	path := namesRequest(m.Method)
	if path == nil {
		return nil
	}
	start, end, ok := transport.Find(p, path...)
	if !ok {
		return nil
	}
	return p[start:end]
}
