// Package credentials owns auth.json: it reads and watches the file, refreshes
// the tokens in it, and recovers when a backend refuses them. Nothing outside
// of it ever sees a refresh token or an API key.
package credentials

import (
	"context"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// Options configures a [Store].
type Options struct {
	File     string                            // auth.json; required, absolute
	TokenURL string                            // "": https://auth.openai.com/oauth/token
	ClientID string                            // "": app_EMoamEEZ73f0CkXaXp7hrann
	Poll     time.Duration                     // 0: 1 s; the net beside the watcher
	HTTP     *http.Client                      // nil: one with the proxy of the environment and a limit of 30 s
	Logger   hclog.Logger                      // nil: discard
	Changed  func(transport.CredentialsChange) // called after every effective change, from one goroutine; must not block; may be nil
	NoWatch  bool                              // polling only: for network file systems
}

// A Store holds the credentials.
type Store struct{ opts Options }

// New reads the file once. Nothing runs before [Store.Run].
func New(o Options) (*Store, error) { return &Store{opts: o}, nil }

// Run watches the file until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// Reload reads the file again and reports whether the credentials changed.
func (s *Store) Reload(reason string) (changed bool) { return false }

// Credentials returns what a granted plugin gets.
func (s *Store) Credentials(ctx context.Context) (transport.Credentials, error) {
	return transport.Credentials{}, transport.ErrNoCredentials
}

// A Status says what a person may know of the credentials. It holds no secret.
type Status struct {
	File             string     `json:"file"`
	Mode             string     `json:"mode,omitempty"`    // "chatgpt", "apikey"; "" if there are no credentials
	Account          string     `json:"account,omitempty"` // shortened
	Generation       uint64     `json:"generation"`
	LoadedAt         time.Time  `json:"loaded_at"`
	LastRefresh      *time.Time `json:"last_refresh,omitempty"`
	Problem          string     `json:"problem,omitempty"` // why there are no usable credentials
	Refreshing       bool       `json:"refreshing,omitempty"`
	LastRefreshError string     `json:"last_refresh_error,omitempty"`
}

// Status returns a snapshot.
func (s *Store) Status() Status { return Status{File: s.opts.File, Generation: 1} }

// A Ladder is one plugin instance's recovery from refused credentials.
type Ladder struct{ store *Store }

// NewLadder makes the ladder of one plugin instance.
func (s *Store) NewLadder() *Ladder { return &Ladder{store: s} }

// Recover takes one step.
func (l *Ladder) Recover(ctx context.Context, generation uint64) (transport.Credentials, error) {
	return l.store.Credentials(ctx)
}

// Accepted begins the ladder anew.
func (l *Ladder) Accepted(generation uint64) {}
