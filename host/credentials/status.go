package credentials

import (
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// A Status says what a person may know of the credentials. It holds no secret.
type Status struct {
	File             string     `json:"file"`
	Mode             Mode       `json:"mode,omitempty"`    // "" if there are no credentials
	Account          string     `json:"account,omitempty"` // shortened
	Generation       uint64     `json:"generation"`
	LoadedAt         time.Time  `json:"loaded_at"`
	LastRefresh      *time.Time `json:"last_refresh,omitempty"`
	Problem          string     `json:"problem,omitempty"` // why there is nothing for transports
	Refreshing       bool       `json:"refreshing,omitempty"`
	LastRefreshError string     `json:"last_refresh_error,omitempty"` // of these credentials
	Unsaved          string     `json:"unsaved,omitempty"`            // why what a refresh brought is in no file
}

// Status returns what is known now. It waits for nobody.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		File: s.opts.File, Mode: s.auth.mode, Account: transport.ShortAccount(s.auth.tokens.account),
		Generation: s.generation, LoadedAt: s.loadedAt, Problem: s.problem,
		Refreshing: s.flight != nil, LastRefreshError: s.refreshError,
	}
	if s.unsaved != "" {
		st.Unsaved = "the refreshed tokens are not saved, and lost if the host ends now: " + s.unsaved
	}
	if t := s.auth.lastRefresh; !t.IsZero() {
		st.LastRefresh = &t
	}
	if _, err := s.auth.usable(); err != nil && st.Problem == "" {
		st.Problem = err.Error()
	}
	return st
}
