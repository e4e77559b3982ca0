// Package credentials owns auth.json: it reads and watches the file, refreshes
// the tokens in it, and recovers when a backend refuses them. Nothing outside
// of it ever sees a refresh token or an API key.
package credentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// What the reference uses (spec §3.7).
const (
	defaultTokenURL = "https://auth.openai.com/oauth/token"
	defaultClientID = "app_EMoamEEZ73f0CkXaXp7hrann"

	defaultOriginator = "codex_cli_rs"
)

// Options configures a [Store].
type Options struct {
	File     string                            // auth.json; required, absolute
	Name     string                            // of this program at TokenURL, as the reference's originator; "": codex_cli_rs
	Version  string                            // of this program; "": 0.0.0
	TokenURL string                            // "": https://auth.openai.com/oauth/token
	ClientID string                            // "": app_EMoamEEZ73f0CkXaXp7hrann
	Poll     time.Duration                     // 0: 1 s; the net beside the watcher
	Proxy    transport.Secret                  // on the way to TokenURL: a URL, or ProxyDirect; "": the environment's
	CAFile   string                            // of authorities that are trusted beside the system's; "": none
	Logger   hclog.Logger                      // nil: discard
	Changed  func(transport.CredentialsChange) // called after every effective change, from one goroutine; must not block; may be nil
	NoWatch  bool                              // polling only: for network file systems
}

func (o Options) withDefaults() (Options, error) {
	o.TokenURL = cmp.Or(o.TokenURL, defaultTokenURL)
	o.ClientID = cmp.Or(o.ClientID, defaultClientID)
	o.Name, o.Version = cmp.Or(o.Name, defaultOriginator), cmp.Or(o.Version, "0.0.0")
	o.Poll = cmp.Or(o.Poll, time.Second)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	var errs []error
	if !filepath.IsAbs(o.File) {
		errs = append(errs, fmt.Errorf("the file %q is not an absolute path", o.File))
	}
	if u, err := url.Parse(o.TokenURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		errs = append(errs, errors.New("the token URL is not an http or https URL")) // it may hold a password
	}
	if o.Poll < 0 {
		errs = append(errs, fmt.Errorf("the poll interval is %v, want more than 0", o.Poll))
	}
	return o, errors.Join(errs...)
}

// A Store holds the credentials of one file. Its methods may be called from any
// goroutine, before, during and after [Store.Run].
type Store struct {
	opts Options
	log  hclog.Logger
	http *http.Client  // for the token endpoint
	told chan struct{} // capacity 1: pending has something

	write func(file string, content []byte) error // writeFile, but in tests

	// disk lets one look at the file, or write it, at a time, together with
	// what follows from it: our own write is one change, and its reason is ours.
	// It is taken before mu.
	disk       sync.Mutex
	seen       fingerprint // of what was read last
	superseded auth        // what the file said last, if what a refresh brought is not saved; or zero

	mu           sync.Mutex // guards what follows; never held while waiting
	auth         auth
	problem      string // why there is no auth
	generation   uint64
	loadedAt     time.Time
	flight       *flight // the refresh under way, or nil
	refused      failure // the last permanent one
	failed       failure // the last one of any kind
	refreshError string
	unsaved      string // why what a refresh brought is in no file; "" if it is in one
	pending      []transport.CredentialsChange

	// running is the context of Run: a refresh lives in it, and so survives the
	// caller who asked. Nil before Run.
	running context.Context
	flights sync.WaitGroup // added to with mu held, while running goes on
}

// maxPending bounds the changes that nobody has been told yet: before Run. The
// oldest are forgotten, for only the latest generation is of use.
const maxPending = 16

// New reads the file once: its content, if only "no auth", is generation 1.
// Nothing runs before [Store.Run].
func New(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("opening the credentials: %w", err)
	}
	route, err := newRoute(o.Proxy, o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("opening the credentials: %w", err)
	}
	s := &Store{opts: o, log: o.Logger, http: route, told: make(chan struct{}, 1), write: writeFile, generation: 1, loadedAt: time.Now()}
	r := readAuth(o.File)
	s.auth, s.problem, s.seen = r.auth, r.problem, r.fingerprint
	s.log.Info("credentials loaded", "mode", string(s.auth.mode), "account", transport.ShortAccount(s.auth.tokens.account), "problem", s.problem)
	return s, nil
}

// Run watches the file, and calls [Options.Changed], until ctx ends. It is
// called once, returns the cause of ctx, and leaves nothing behind: a refresh
// that is under way ends with it.
func (s *Store) Run(ctx context.Context) error {
	s.mu.Lock()
	s.running = ctx
	s.mu.Unlock()
	var teller sync.WaitGroup
	teller.Go(func() { s.tell(ctx) })
	s.watch(ctx)
	s.mu.Lock()
	s.pending = nil // nobody is told any more
	s.mu.Unlock()   // and whoever began a flight before the end of ctx has added it
	s.flights.Wait()
	s.saveAgain(nil) // the last chance for what is nowhere else
	teller.Wait()
	return context.Cause(ctx)
}

// tell calls Changed until ctx ends.
func (s *Store) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.told:
		}
		s.mu.Lock()
		changes := s.pending
		s.pending = nil
		s.mu.Unlock()
		for _, c := range changes {
			if s.opts.Changed != nil && ctx.Err() == nil {
				s.opts.Changed(c)
			}
		}
	}
}

// Reload reads the file again and reports whether the credentials changed by
// that. It waits up to 300 ms for a file that is just being written.
func (s *Store) Reload(reason string) (changed bool) { return s.look(nil, reason) }

// look is Reload. It waits for a file that is just being written, but not
// beyond the end of done.
func (s *Store) look(done <-chan struct{}, reason string) (changed bool) {
	s.disk.Lock()
	defer s.disk.Unlock()
	r, ok := s.settled(done)
	if !ok {
		return false
	}
	if !s.superseded.none() {
		if r.auth == s.superseded || r.unreadable {
			return false // what we have is newer, and nowhere else
		}
		s.supersede(auth{}, nil)
	}
	return s.adopt(r.auth, r.problem, reason)
}

// supersede notes that what a refresh brought in the place of old could not be
// saved, and why; or, without an error, that there is no such thing. The caller
// holds disk.
func (s *Store) supersede(old auth, why error) {
	s.superseded = old
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsaved = ""
	if why != nil {
		s.unsaved = why.Error()
	}
}

// adopt makes a the credentials, and reports whether they are others than
// before. The caller holds disk.
func (s *Store) adopt(a auth, problem, reason string) (changed bool) {
	s.mu.Lock()
	s.problem = problem
	if a == s.auth {
		s.mu.Unlock()
		return false
	}
	s.auth = a
	s.generation++
	s.loadedAt = time.Now()
	s.refreshError = ""
	generation := s.generation
	s.pending = append(s.pending, transport.CredentialsChange{Generation: generation, Reason: reason})
	if n := len(s.pending) - maxPending; n > 0 {
		s.pending = s.pending[n:]
	}
	s.mu.Unlock()
	select {
	case s.told <- struct{}{}:
	default: // the teller is about to look
	}
	s.log.Info("credentials changed", "generation", generation, "reason", reason,
		"mode", string(a.mode), "account", transport.ShortAccount(a.tokens.account), "problem", problem)
	return true
}

// snapshot returns the credentials and their generation.
func (s *Store) snapshot() (auth, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.auth, s.generation
}

// now returns what plugins get of the credentials, without looking at the file.
func (s *Store) now() (transport.Credentials, error) {
	a, generation := s.snapshot()
	c, err := a.usable()
	if err != nil {
		return transport.Credentials{}, err
	}
	c.Generation = generation
	return c, nil
}

// Credentials returns what a granted plugin gets. Credentials that have expired
// are refreshed first, which takes up to 30 s; if there is nothing usable the
// file is read once more. An error is [transport.ErrNoCredentials] and says why,
// in the words of spec §3.4; or it is the cause of ctx.
func (s *Store) Credentials(ctx context.Context) (transport.Credentials, error) {
	for reloaded := false; ; reloaded = true {
		s.freshen(ctx)
		c, err := s.now()
		switch {
		case ctx.Err() != nil:
			return transport.Credentials{}, context.Cause(ctx)
		case err == nil || reloaded: // at most one reload per call
			return c, err
		}
		s.look(ctx.Done(), "read again for a transport")
	}
}
