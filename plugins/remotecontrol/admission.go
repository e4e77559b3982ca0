package remotecontrol

import (
	"time"

	"golang.org/x/time/rate"
)

const (
	// defaultMaxClients is the default of max_clients.
	defaultMaxClients = 256
	// opensPerSecond and opensBurst bound how fast virtual clients come: the host
	// hears of each, whether it has room or not.
	opensPerSecond = 50
	opensBurst     = 100
	// maxRefusals bounds what a stream without a virtual client retains when it
	// is told that there is no room: who goes on asking is not told again before
	// it acknowledges.
	maxRefusals = 8
)

func newOpens() *rate.Limiter { return rate.NewLimiter(opensPerSecond, opensBurst) }

// admitLocked reports whether there is room for one more virtual client. One
// that old makes way for counts, unless it has still something to say.
func (c *clients) admitLocked(old *virtualClient) bool {
	room := c.maxClients
	if old != nil && !old.delivers {
		room++
	}
	return c.active < room && c.opens.AllowN(time.Now(), 1)
}

// refuseLocked answers an initialize for which there is no room. A virtual
// client that the stream has stays: its peer may go on with it, or try again.
func (c *clients) refuseLocked(s *stream, e *clientEnvelope, first *ledgerEntry) {
	c.passLocked(e, first)
	c.tally.refused.Add(1)
	limit := maxRefusals
	if s.vc != nil {
		limit = maxAnswers
		if e.SeqID != nil && (s.vc.note.Seq == nil || *e.SeqID > *s.vc.note.Seq) {
			s.vc.note.Seq = e.SeqID
		}
	} else {
		c.idleLocked(s)
	}
	if len(s.answers) >= limit || s.vc == nil && s.out.envelopes >= limit {
		return
	}
	s.answers = append(s.answers, newAnswer(answerOverloaded, e.peeked.ID))
	c.kickLocked(s)
}
