// Package backend is the relay's side of remote control, whole and independent
// of the plugin: it enrolls hosts, gives and refreshes server tokens, takes
// their WebSockets, carries virtual clients over them, and answers for the
// OAuth token endpoint. It is written from the specification of the wire, so
// that a misreading on one side shows up as a [Violation] on the other.
//
// Everything that a host sends is checked. What goes wrong on a real network
// can be asked for: see [Backend.AnswerNext], [Backend.Drop] and their
// neighbours.
package backend

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A Profile is a generation of the wire.
type Profile uint8

const (
	_        Profile = iota // the zero value means Profile3
	_                       // there was a first one; nobody speaks it
	Profile2                // account token on the WebSocket, no chunks
	Profile3                // server token and refresh, chunks, installation id
)

// chunks reports whether large messages travel in segments.
func (p Profile) chunks() bool { return p == Profile3 }

// Paths below the base path, and beside it.
const (
	BasePath       = "/backend-api/"
	EnrollPath     = BasePath + "wham/remote/control/server/enroll"
	RefreshPath    = BasePath + "wham/remote/control/server/refresh"
	UpgradePath    = BasePath + "wham/remote/control/server"
	TokenPath      = "/oauth/token"
	ControllerPath = "/controller"
)

const (
	defaultTokenLifetime = time.Hour
	defaultRetainBytes   = 512 << 20
	// defaultOAuthClient is the client id that hosts use unless they are
	// configured otherwise.
	defaultOAuthClient = "app_EMoamEEZ73f0CkXaXp7hrann"
	// headerTimeout is how long a host may take to say what it wants.
	headerTimeout = 10 * time.Second
	// maxBody bounds what we read of a request's body; a host sends some
	// hundred bytes.
	maxBody = 64 << 10
)

// Options configures a backend. The zero value is ready to use.
type Options struct {
	Profile       Profile          // 0: Profile3
	NoServerToken bool             // a Profile3 backend that gives no server tokens
	TokenLifetime time.Duration    // of server tokens; 0: 1 hour
	Accounts      []AccountOptions // nil: one, made up
	OAuthClient   string           // client id that the token endpoint expects; "": the hosts' default
	RecordSecrets bool             // [Request] keeps tokens as they came
	// RetainBytes bounds the messages to hosts that are kept for a resend. The
	// oldest go first, and [Connect] says that a host missed them. 0: 512 MiB.
	RetainBytes int
	Logger      hclog.Logger     // nil: discard. Gets neither secrets nor payloads
	Now         func() time.Time // for the expiry of tokens; nil: time.Now
}

func (o Options) withDefaults() Options {
	o.Profile = cmp.Or(o.Profile, Profile3)
	o.TokenLifetime = cmp.Or(o.TokenLifetime, defaultTokenLifetime)
	o.OAuthClient = cmp.Or(o.OAuthClient, defaultOAuthClient)
	o.RetainBytes = cmp.Or(o.RetainBytes, defaultRetainBytes)
	if o.Accounts == nil {
		o.Accounts = []AccountOptions{{}}
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Profile != Profile2 && o.Profile != Profile3 {
		errs = append(errs, fmt.Errorf("Profile is %d, want 2 or 3", o.Profile))
	}
	if o.TokenLifetime < 0 {
		errs = append(errs, fmt.Errorf("TokenLifetime is %v, want 0 or more", o.TokenLifetime))
	}
	if o.RetainBytes < 0 {
		errs = append(errs, fmt.Errorf("RetainBytes is %d, want 0 or more", o.RetainBytes))
	}
	return errors.Join(errs...)
}

// A Backend is one relay. All methods are safe for concurrent use.
//
// Virtual clients that are not pinned to a server are carried by the host that
// connected last. Cursors and the numbers of streams are those of one space: a
// host keeps them when it enrolls anew. Several hosts at a time therefore need
// pinned clients, each with an id of its own.
type Backend struct {
	opts  Options
	log   hclog.Logger
	epoch string // marks the cursors of this backend
	seed  maphash.Seed

	done     chan struct{} // closed once, by Close
	handlers sync.WaitGroup

	mu          sync.Mutex // guards what follows; never held while a socket is read or written
	closed      bool
	changed     bell
	accounts    []*account
	enrollments []*enrollment
	links       []*link // alive, oldest first
	connects    []*Connect
	clients     []*Client
	known       map[streamKey]bool // what clients ever sent on; without a stream: the client
	streams     map[streamKey]*stream
	ledger      ledger
	requests    []*Request
	frames      []Frame
	framesSeen  int
	violations  []Violation
	faults      faults
	refreshes   int // of account tokens that the token endpoint granted
}

// New makes a backend. It starts nothing: mount [Backend.Handler] or call
// [Backend.Serve], and call [Backend.Close] in the end.
func New(o Options) (*Backend, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("checking the options of a backend: %w", err)
	}
	b := &Backend{opts: o, log: o.Logger, epoch: rand.Text()[:8], seed: maphash.MakeSeed(), done: make(chan struct{}),
		streams: map[streamKey]*stream{}, known: map[streamKey]bool{}}
	b.faults.init()
	for _, a := range o.Accounts {
		b.AddAccount(a)
	}
	return b, nil
}

// Handler serves the base path, the token endpoint and the controllers.
func (b *Backend) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(EnrollPath, b.counted(b.answering(EndpointEnroll, b.enroll)))
	mux.HandleFunc(RefreshPath, b.counted(b.answering(EndpointRefresh, b.refresh)))
	mux.HandleFunc(TokenPath, b.counted(b.answering(EndpointToken, b.token)))
	mux.HandleFunc("/", b.counted(b.answering(EndpointUnknown, b.unknown)))
	mux.HandleFunc(UpgradePath, b.counted(b.serveUpgrade))
	mux.HandleFunc(ControllerPath, b.counted(b.serveController))
	return mux
}

// counted lets Close wait for the handlers: a server forgets those that took
// over their connection.
func (b *Backend) counted(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			http.Error(w, "the backend is closed", http.StatusServiceUnavailable)
			return
		}
		b.handlers.Add(1)
		b.mu.Unlock()
		defer b.handlers.Done()
		serve(w, r)
	}
}

// Serve accepts from l until ctx ends, then closes the backend and l.
func (b *Backend) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: b.Handler(), ReadHeaderTimeout: headerTimeout}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		b.Close()
		_ = server.Close() // its error is that of a listener that is gone already
	})
	err := server.Serve(l)
	if stop() {
		b.Close()
	} else {
		<-ended
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// Close ends all links and controllers and every request that a fault holds,
// and waits for them. Virtual clients are of no use afterwards.
func (b *Backend) Close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.done)
	}
	links := slices.Clone(b.links)
	b.notify()
	b.mu.Unlock()
	for _, l := range links {
		l.close(closeGoingAway, "the backend stops")
	}
	b.handlers.Wait()
}

// A bell wakes everybody who waits for a change. Backend.mu guards it.
type bell struct{ rung chan struct{} } // nil while nobody waits

func (w *bell) wait() <-chan struct{} {
	if w.rung == nil {
		w.rung = make(chan struct{})
	}
	return w.rung
}

func (w *bell) ring() {
	if w.rung != nil {
		close(w.rung)
		w.rung = nil
	}
}

// notify wakes those who await something of the backend. b.mu is held.
func (b *Backend) notify() { b.changed.ring() }

// ErrClosed is returned by waits that [Backend.Close] ended.
var ErrClosed = errors.New("the backend is closed")

// await returns once ready, which runs with b.mu held, reports true. The bell
// is rung whenever that may have changed.
func (b *Backend) await(ctx context.Context, changed *bell, ready func() bool) error {
	for {
		b.mu.Lock()
		if ready() {
			b.mu.Unlock()
			return nil
		}
		rung := changed.wait()
		b.mu.Unlock()
		select {
		case <-rung:
		case <-b.done:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (b *Backend) now() time.Time { return b.opts.Now() }
