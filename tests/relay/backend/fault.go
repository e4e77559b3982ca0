package backend

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// An Answer is what the backend says instead of doing what was asked. Of its
// fields Drop counts first, then Hang, then Status; with none of them it only
// delays.
type Answer struct {
	Delay  time.Duration // before anything else
	Drop   bool          // end the TCP connection without a word
	Hang   bool          // never answer
	Status int
	Header http.Header // for example Retry-After, X-Request-Id, Cf-Ray
	Body   string
}

// Reject is a plain answer with a JSON body that has a detail.
func Reject(status int, detail string) Answer {
	return Answer{Status: status, Header: http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"req-fault"}},
		Body: `{"detail":` + strconv.Quote(detail) + `}`}
}

// Overloaded is a 429 or 503 that says when to come back.
func Overloaded(status int, after time.Duration) Answer {
	a := Reject(status, "slow down")
	a.Header.Set("Retry-After", strconv.Itoa(int(after/time.Second)))
	return a
}

// MultiFactorRequired is the 403 of a workspace with that rule.
func MultiFactorRequired() Answer {
	return Reject(http.StatusForbidden, "Multi-factor authentication required")
}

// Cloudflare is the page that blocks a request before it reaches the backend.
func Cloudflare() Answer {
	return Answer{Status: http.StatusForbidden,
		Header: http.Header{"Content-Type": {"text/html; charset=UTF-8"}, "Cf-Ray": {"8f2a5c7d9e0b1234-FRA"}, "Server": {"cloudflare"}},
		Body: "<!DOCTYPE html>\n<html lang=\"en-US\"><head><title>Just a moment...</title></head>" +
			"<body><h1>Sorry, you have been blocked</h1><p>Cloudflare Ray ID: 8f2a5c7d9e0b1234</p></body></html>\n"}
}

// faults are the answers that are due, and what goes wrong on links. They are
// guarded by Backend.mu.
type faults struct {
	once   map[Endpoint][]Answer
	always map[Endpoint]Answer

	noAcks    bool
	noPongs   bool
	early     bool      // every chunk has a cursor of its own
	duplicate int       // envelopes to come that are sent twice
	swap      int       // pairs of messages to come that change places
	pauseTill time.Time // nothing is read until then
	random    *randomDrops
}

func (f *faults) init() {
	f.once, f.always = map[Endpoint][]Answer{}, map[Endpoint]Answer{}
}

func (f *faults) next(endpoint Endpoint) (Answer, bool) {
	if due := f.once[endpoint]; len(due) > 0 {
		f.once[endpoint] = due[1:]
		return due[0], true
	}
	a, ok := f.always[endpoint]
	return a, ok
}

// A randomDrops ends the link after a random number of frames, some times.
type randomDrops struct {
	rng    *rand.Rand
	mean   int
	left   int // times to come
	frames int // until the next one
}

func (d *randomDrops) draw() { d.frames = 1 + d.rng.IntN(2*d.mean) }

// dropDue counts a frame in either direction. Backend.mu is held.
func (f *faults) dropDue() bool {
	d := f.random
	if d == nil || d.left == 0 {
		return false
	}
	if d.frames--; d.frames > 0 {
		return false
	}
	if d.left--; d.left > 0 {
		d.draw()
	}
	return true
}

// AnswerNext queues answers for the next requests of an endpoint, one each.
func (b *Backend) AnswerNext(endpoint Endpoint, answers ...Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults.once[endpoint] = append(b.faults.once[endpoint], answers...)
}

// AnswerAlways answers all requests of an endpoint so, until [Backend.Heal].
func (b *Backend) AnswerAlways(endpoint Endpoint, a Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults.always[endpoint] = a
}

// Heal takes back all faults that are not over, and acknowledges what was not
// acknowledged meanwhile.
func (b *Backend) Heal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	acked := b.faults.noAcks
	b.faults = faults{}
	b.faults.init()
	if acked {
		b.ackAll()
	}
	b.notify()
}

// StopAcks acknowledges nothing until [Backend.Heal].
func (b *Backend) StopAcks() { b.setFault(func(f *faults) { f.noAcks = true }) }

// StopPongs leaves the pings of links without an answer until [Backend.Heal].
func (b *Backend) StopPongs() { b.setFault(func(f *faults) { f.noPongs = true }) }

// StopReading reads nothing from any link for a time, or until [Backend.Heal].
func (b *Backend) StopReading(d time.Duration) {
	b.setFault(func(f *faults) { f.pauseTill = time.Now().Add(d) })
}

// EarlyCursors gives each segment of a message a cursor, where usually only
// the last one has one. A host must not take it up before the message is whole.
func (b *Backend) EarlyCursors() { b.setFault(func(f *faults) { f.early = true }) }

// Duplicate sends each of the next n envelopes with a message twice.
func (b *Backend) Duplicate(n int) { b.setFault(func(f *faults) { f.duplicate += n }) }

// Swap sends n messages to come behind their successors of the same client.
// A host drops the late ones as duplicates: this is a relay that loses order.
func (b *Backend) Swap(n int) { b.setFault(func(f *faults) { f.swap += n }) }

// DropRandomly ends the link after a random number of frames in both
// directions together, times times, with a mean of frames between.
func (b *Backend) DropRandomly(seed uint64, mean, times int) {
	b.setFault(func(f *faults) {
		d := &randomDrops{rng: rand.New(rand.NewPCG(seed, seed)), mean: max(mean, 1), left: times}
		d.draw()
		f.random = d
	})
}

// DropAfter ends the link after n more frames in both directions together.
func (b *Backend) DropAfter(n int) {
	b.setFault(func(f *faults) { f.random = &randomDrops{left: 1, frames: max(n, 1)} })
}

// DropsLeft is how many of the drops after frames are still to come.
func (b *Backend) DropsLeft() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.faults.random == nil {
		return 0
	}
	return b.faults.random.left
}

func (b *Backend) setFault(change func(*faults)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.faults)
	b.notify()
}

// misbehave does what a says instead of serving. It reports false if the
// request is to be served after all.
func (b *Backend) misbehave(w http.ResponseWriter, r *http.Request, req *Request, a Answer) bool {
	b.log.Info("fault", "endpoint", string(req.Endpoint), "status", a.Status, "hang", a.Hang, "drop", a.Drop, "delay", a.Delay.String())
	if a.Delay > 0 || a.Hang {
		var over <-chan time.Time
		if !a.Hang {
			timer := time.NewTimer(a.Delay)
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-over:
		case <-b.done:
			return true
		case <-r.Context().Done():
			return true
		}
	}
	switch {
	case a.Drop:
		panic(http.ErrAbortHandler) // what the server knows as an end without a word
	case a.Status == 0:
		return false
	}
	header := a.Header.Clone()
	if header.Get("Content-Type") == "" {
		header = http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
		maps.Copy(header, a.Header)
	}
	b.answer(w, req, reply{status: a.Status, header: header, body: []byte(a.Body)})
	return true
}
