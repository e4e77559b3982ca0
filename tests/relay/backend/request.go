package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// An Endpoint is one of the places that a host talks to.
type Endpoint string

const (
	EndpointEnroll  Endpoint = "enroll"
	EndpointRefresh Endpoint = "refresh"
	EndpointUpgrade Endpoint = "upgrade"
	EndpointToken   Endpoint = "token"
	EndpointUnknown Endpoint = "unknown"
)

// maxRecorded bounds what is remembered of requests and of frames; the oldest
// are forgotten.
const maxRecorded = 10_000

// A Request is what a host asked over HTTP. Tokens are left out unless
// Options.RecordSecrets is set.
type Request struct {
	N        int // from 1
	Endpoint Endpoint
	At       time.Time
	Method   string
	Path     string
	Header   http.Header
	Body     []byte
	Bearer   string // whose token it was: "account ID", "server ID", "unknown" or ""
	Status   int    // of our answer; 0 while there is none
}

// A reply is what an endpoint answers.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func jsonReply(status int, body any) reply {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // maps of strings always marshal
	}
	return reply{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: text}
}

func detailReply(status int, detail string) reply {
	return jsonReply(status, map[string]string{"detail": detail})
}

// answering serves an endpoint with handle, which runs with b.mu held.
func (b *Backend) answering(endpoint Endpoint, handle func(r *http.Request, body []byte) reply) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		req, body, ok := b.begin(w, r, endpoint)
		if !ok {
			return
		}
		b.mu.Lock()
		answer := handle(r, body)
		b.mu.Unlock()
		b.answer(w, req, answer)
	}
}

// begin records a request and lets a fault answer it. If it reports false
// nothing is left to do.
func (b *Backend) begin(w http.ResponseWriter, r *http.Request, endpoint Endpoint) (*Request, []byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	req := &Request{N: 1, Endpoint: endpoint, At: time.Now(), Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Body: bytes.Clone(body)}
	b.mu.Lock()
	if len(b.requests) > 0 {
		req.N = b.requests[len(b.requests)-1].N + 1
	}
	req.Bearer = b.whose(bearer(r))
	if !b.opts.RecordSecrets {
		if req.Header.Get("Authorization") != "" {
			req.Header.Set("Authorization", "Bearer [redacted]")
		}
		if endpoint == EndpointToken {
			req.Body = []byte("[redacted]")
		}
	}
	b.requests = append(b.requests, req)
	if len(b.requests) > maxRecorded {
		b.requests = b.requests[1:]
	}
	b.notify()
	answer, faulty := b.faults.next(endpoint)
	who := req.Bearer
	b.mu.Unlock()
	b.log.Debug("request", "n", req.N, "endpoint", string(endpoint), "method", r.Method, "bearer", who, "bytes", len(body))
	if err != nil {
		b.answer(w, req, detailReply(http.StatusRequestEntityTooLarge, "the body is too large"))
		return req, body, false
	}
	if faulty && b.misbehave(w, r, req, answer) {
		return req, body, false
	}
	return req, body, true
}

// answer writes head and body in one piece: a host may read no more of the
// answer to an upgrade than what comes with the head.
func (b *Backend) answer(w http.ResponseWriter, req *Request, a reply) {
	b.mu.Lock()
	req.Status = a.status
	b.notify()
	b.mu.Unlock()
	for name, values := range a.header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // a host that left does not want it
	b.log.Debug("answered", "n", req.N, "status", a.status)
}

// whose says in words which token it is. b.mu is held.
func (b *Backend) whose(token string) string {
	if token == "" {
		return ""
	}
	for _, e := range b.enrollments {
		for _, known := range e.tokens {
			if token == known {
				return "server " + e.ServerID
			}
		}
	}
	for _, a := range b.accounts {
		if _, good := a.access[token]; good || token == string(a.AccessToken) {
			return "account " + a.ID
		}
	}
	return "unknown"
}

func (b *Backend) unknown(r *http.Request, _ []byte) reply {
	b.violate(0, problemf(BadRequest, "nothing is at %q", shortened(r.URL.Path)))
	return detailReply(http.StatusNotFound, "Not Found")
}

// Requests lists what was asked so far, oldest first.
func (b *Backend) Requests() []Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Request, len(b.requests))
	for i, r := range b.requests {
		all[i] = *r
	}
	return all
}

// AwaitRequest waits for a request that matches, and returns the first one,
// which may be one of the past: compare N to have a later one.
func (b *Backend) AwaitRequest(ctx context.Context, match func(Request) bool) (Request, error) {
	var found Request
	err := b.await(ctx, &b.changed, func() bool {
		for _, r := range b.requests {
			if match(*r) {
				found = *r
				return true
			}
		}
		return false
	})
	if err != nil {
		return Request{}, fmt.Errorf("awaiting a request: %w", err)
	}
	return found, nil
}

// CountRequests is how many requests an endpoint had.
func (b *Backend) CountRequests(endpoint Endpoint) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, r := range b.requests {
		if r.Endpoint == endpoint {
			n++
		}
	}
	return n
}
