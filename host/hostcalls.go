package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/transporthost/transporthost/host/credentials"
	"github.com/transporthost/transporthost/host/state"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// hostCalls answers what one process may ask: what its transport is granted, and
// nothing else.
type hostCalls struct {
	account *credentials.Store // nil: not granted
	ladder  *credentials.Ladder
	bucket  *state.Bucket                         // nil: not granted
	name    func(context.Context) (string, error) // nil: not granted
	known   *knowledge                            // of the credentials, by the process
	report  func(transport.Status)
}

var _ rpc.HostCalls = hostCalls{}

// knowledge is what one process knows of the credentials.
type knowledge struct {
	base  uint64        // generation of the last change before the process began
	given atomic.Uint64 // generation that it was given last; 0: it has not asked
}

// A processID names one process.
type processID struct {
	instance    string
	incarnation int
}

// hostCalls makes the answers of a process, once what it is granted is open.
func (h *Host) hostCalls(spec supervisor.Spec, incarnation int, report func(transport.Status)) rpc.HostCalls {
	c := hostCalls{report: report}
	grants := originOf(spec).Grant
	if account, err := h.vault.credentials(); err == nil && slices.Contains(grants, GrantCredentials) {
		c.account, c.ladder = account, account.NewLadder()
	}
	if slices.Contains(grants, GrantState) {
		c.bucket = h.vault.bucket(spec.Instance)
	}
	if slices.Contains(grants, GrantClientName) {
		c.name = h.clientName
	}
	id := processID{spec.Instance, incarnation}
	present := h.incarnation(spec.Instance)
	h.mu.Lock()
	defer h.mu.Unlock()
	c.known = &knowledge{base: h.change.Generation}
	// Only the one that is there, and the one that this one is to be, count.
	other := func(have processID) bool {
		return have.instance == id.instance && have.incarnation != present && have != id
	}
	maps.DeleteFunc(h.known, func(have processID, _ *knowledge) bool { return other(have) })
	maps.DeleteFunc(h.told, func(have processID, _ transport.AuthStrictness) bool { return other(have) })
	h.known[id] = c.known
	return c
}

// incarnation returns the number of the present process of an instance.
func (h *Host) incarnation(instance string) int {
	for _, p := range h.supervised() {
		if s := p.Status(); s.Instance == instance {
			return s.Incarnation
		}
	}
	return 0
}

func notGranted(what string) error {
	return fmt.Errorf("%s: %w by the configuration of this host", what, transport.ErrNotGranted)
}

func (c hostCalls) Credentials(ctx context.Context) (transport.Credentials, error) {
	if c.account == nil {
		return transport.Credentials{}, notGranted("credentials")
	}
	return c.give(c.account.Credentials(ctx))
}

func (c hostCalls) RecoverUnauthorized(ctx context.Context, generation uint64) (transport.Credentials, error) {
	if c.account == nil {
		return transport.Credentials{}, notGranted("credentials")
	}
	return c.give(c.ladder.Recover(ctx, generation))
}

// give remembers what the process has: it need not be told of it.
func (c hostCalls) give(got transport.Credentials, err error) (transport.Credentials, error) {
	for err == nil {
		before := c.known.given.Load()
		if before >= got.Generation || c.known.given.CompareAndSwap(before, got.Generation) {
			break
		}
	}
	return got, err
}

func (c hostCalls) CredentialsAccepted(generation uint64) {
	if c.ladder != nil {
		c.ladder.Accepted(generation)
	}
}

func (c hostCalls) ClientName(ctx context.Context) (string, error) {
	if c.name == nil {
		return "", notGranted("the client's name")
	}
	return c.name(ctx)
}

func (c hostCalls) LoadState(_ context.Context, key string) ([]byte, error) {
	if c.bucket == nil {
		return nil, notGranted("state")
	}
	return c.bucket.Load(key)
}

func (c hostCalls) SaveState(_ context.Context, key string, value []byte) error {
	if c.bucket == nil {
		return notGranted("state")
	}
	return c.bucket.Save(key, value)
}

func (c hostCalls) DeleteState(_ context.Context, key string) error {
	if c.bucket == nil {
		return notGranted("state")
	}
	return c.bucket.Delete(key)
}

func (c hostCalls) ReportStatus(s transport.Status) { c.report(s) }
