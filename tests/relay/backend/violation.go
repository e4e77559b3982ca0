package backend

import (
	"fmt"
	"time"
)

// A ViolationKind says which rule of the wire a host broke.
type ViolationKind string

const (
	BadRequest     ViolationKind = "bad-request"     // an enrollment or refresh with wrong headers or body
	BadUpgrade     ViolationKind = "bad-upgrade"     // headers of the WebSocket that do not fit the profile
	BadCursor      ViolationKind = "bad-cursor"      // a subscribe cursor that we never gave
	BadFrame       ViolationKind = "bad-frame"       // binary, or no JSON object
	BadEnvelope    ViolationKind = "bad-envelope"    // unknown type, or a field that is missing, wrong or too much
	KeyOrder       ViolationKind = "key-order"       // the right fields in another order
	BadStreamID    ViolationKind = "bad-stream-id"   // a stream that nobody named, and no UUIDv7
	BadMessage     ViolationKind = "bad-message"     // no JSON-RPC message
	Unasked        ViolationKind = "unasked"         // for a client that never sent anything
	SeqGap         ViolationKind = "seq-gap"         // a sequence number or segment was left out
	SeqRepeat      ViolationKind = "seq-repeat"      // a number or segment twice on one socket, or going back
	NotResent      ViolationKind = "not-resent"      // a new socket without what was not acknowledged
	ResendDiffers  ViolationKind = "resend-differs"  // the same number with other bytes
	BadChunk       ViolationKind = "bad-chunk"       // numbers, size or base64 of a segment
	NeedlessChunk  ViolationKind = "needless-chunk"  // segments of what fits into one envelope
	TooLarge       ViolationKind = "too-large"       // an envelope over the limit
	OverRetention  ViolationKind = "over-retention"  // a new message beyond 128 envelopes or 4 MiB without an ack
	UnaskedRefresh ViolationKind = "unasked-refresh" // a refresh where there are no server tokens
)

// maxViolations bounds the list: a host that does one thing wrong does it all
// the time.
const maxViolations = 1000

// A Violation is one thing that a host must not send. Its text carries neither
// secrets nor payloads.
type Violation struct {
	Kind ViolationKind
	Text string
	Link int // number of the [Connect] that it came on, 0 for a request
	At   time.Time
}

func (v Violation) String() string {
	if v.Link == 0 {
		return fmt.Sprintf("%s: %s", v.Kind, v.Text)
	}
	return fmt.Sprintf("%s on link %d: %s", v.Kind, v.Link, v.Text)
}

// A problem is a violation before it is known where it happened.
type problem struct {
	kind ViolationKind
	text string
}

func problemf(kind ViolationKind, format string, args ...any) problem {
	return problem{kind: kind, text: fmt.Sprintf(format, args...)}
}

// violate records problems. b.mu is held.
func (b *Backend) violate(link int, problems ...problem) {
	for _, p := range problems {
		v := Violation{Kind: p.kind, Text: p.text, Link: link, At: time.Now()}
		b.log.Error("violation", "kind", string(v.Kind), "link", v.Link, "text", v.Text)
		if len(b.violations) < maxViolations {
			b.violations = append(b.violations, v)
		}
	}
	if len(problems) > 0 {
		b.notify()
	}
}

// Violations lists what hosts did wrong so far.
func (b *Backend) Violations() []Violation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Violation(nil), b.violations...)
}

// A Reporter is the part of testing.TB that [Backend.Verify] needs.
type Reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

// Verify fails a test for each violation of a kind that is not among the
// expected ones, and for each expected kind that did not occur.
func (b *Backend) Verify(t Reporter, expected ...ViolationKind) {
	t.Helper()
	missing := map[ViolationKind]bool{}
	for _, kind := range expected {
		missing[kind] = true
	}
	allowed := len(missing)
	seen := map[ViolationKind]bool{}
	for _, v := range b.Violations() {
		if _, ok := missing[v.Kind]; ok {
			missing[v.Kind] = false
			seen[v.Kind] = true
			continue
		}
		t.Errorf("the host broke the protocol: %v", v)
	}
	if len(seen) == allowed {
		return
	}
	for kind, is := range missing {
		if is {
			t.Errorf("the host did not break the protocol in the way of %q, which was expected", kind)
		}
	}
}
