package remotecontrol

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	// refreshSkew is how long before its end a server token is replaced.
	refreshSkew = 300 * time.Second
	// refreshDeferral, with as much again of refreshJitter at random, is how
	// long a refresh that failed is left alone, if the server does not say.
	refreshDeferral = 24 * time.Second
	refreshJitter   = 12 * time.Second
	// stateTimeout bounds a change of the host's state, which is made although
	// the transport is stopping: what the backend has done has happened.
	stateTimeout = time.Second
)

// An enrollment is this host as the backend knows it, for one account. The
// token is never stored.
type enrollment struct {
	accountID     string
	environmentID string
	serverID      string
	serverName    string

	token       pluginsdk.Secret // "" before the first refresh, and where the backend gives none
	expires     time.Time        // zero: the backend did not say
	nextRefresh time.Time        // not before
	fresh       bool             // token was issued in this attempt: it is used whatever the clocks say
	tokenless   bool             // the backend gives no server token (spec 0.2, 9)
	askAgain    bool             // it is asked for one all the same, once
}

// A refreshNeed says whether an enrollment's token must be replaced.
type refreshNeed uint8

const (
	refreshNone      refreshNeed = iota
	refreshProactive             // the token is good, but not for long
	refreshRequired              // there is no token that works
)

// need returns whether a refresh is due for a connect at now.
func (e *enrollment) need(now time.Time) refreshNeed {
	switch {
	case e.fresh || e.tokenless && !e.askAgain:
		return refreshNone
	case e.token == "":
		return refreshRequired
	case e.expires.IsZero():
		return refreshNone // until the backend refuses it
	case !e.expires.After(now):
		return refreshRequired
	case !e.expires.After(now.Add(refreshSkew)):
		return refreshProactive
	}
	return refreshNone
}

// issue makes t the token.
func (e *enrollment) issue(t issuedToken) {
	e.token, e.expires = t.token, t.expires
	e.nextRefresh = time.Time{}
	e.fresh = t.token != ""
	e.tokenless, e.askAgain = t.token == "", false
}

// dropToken forgets the token if it is still the one that was used.
func (e *enrollment) dropToken(used pluginsdk.Secret) {
	if e.token == used {
		e.token, e.expires, e.fresh = "", time.Time{}, false
	}
}

// stateCalls are the host's calls for what outlives the process.
type stateCalls interface {
	LoadState(ctx context.Context, key string) ([]byte, error)
	SaveState(ctx context.Context, key string, value []byte) error
	DeleteState(ctx context.Context, key string) error
}

// A row is a stored enrollment.
type row struct {
	WebsocketURL  string    `json:"websocket_url"`
	AccountID     string    `json:"account_id"`
	ClientName    string    `json:"app_server_client_name"` // "" stands for none
	ServerID      string    `json:"server_id"`
	EnvironmentID string    `json:"environment_id"`
	ServerName    string    `json:"server_name"`
	UpdatedAt     time.Time `json:"updated_at"`
	Tokenless     bool      `json:"tokenless,omitempty"`
}

// rows keeps enrollments by (websocket URL, account, client name).
type rows struct {
	state      stateCalls
	websocket  string
	clientName string
}

// key names a row. It is a digest, for what it is made of has no bound; what
// it is made of is in the row.
func (s rows) key(accountID string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", s.websocket, accountID, s.clientName))
	return "enrollment/" + hex.EncodeToString(sum[:])
}

// load returns the stored enrollment of an account, or an error that is
// [pluginsdk.ErrNotFound].
func (s rows) load(ctx context.Context, accountID string) (*enrollment, error) {
	value, err := s.state.LoadState(ctx, s.key(accountID))
	if err != nil {
		return nil, err
	}
	return s.decode(value, accountID)
}

func (s rows) decode(value []byte, accountID string) (*enrollment, error) {
	var r row
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("decoding a stored enrollment: %w", err)
	}
	if r.WebsocketURL != s.websocket || r.ClientName != s.clientName || r.AccountID != accountID || r.ServerID == "" || r.EnvironmentID == "" {
		return nil, fmt.Errorf("a stored enrollment is not what its key says: %w", pluginsdk.ErrNotFound)
	}
	return &enrollment{
		accountID: r.AccountID, environmentID: r.EnvironmentID, serverID: r.ServerID, serverName: r.ServerName, tokenless: r.Tokenless,
	}, nil
}

// save stores e, in the place of what is there.
func (s rows) save(ctx context.Context, accountID string, e *enrollment, now time.Time) error {
	if e.accountID != accountID {
		return fmt.Errorf("enrollment account_id does not match expected account_id `%s`", accountID)
	}
	value, err := json.Marshal(row{
		WebsocketURL: s.websocket, AccountID: e.accountID, ClientName: s.clientName,
		ServerID: e.serverID, EnvironmentID: e.environmentID, ServerName: e.serverName,
		UpdatedAt: now.UTC().Truncate(time.Second), Tokenless: e.tokenless,
	})
	if err != nil {
		return fmt.Errorf("encoding an enrollment: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateTimeout)
	defer cancel()
	return s.state.SaveState(ctx, s.key(accountID), value)
}

// remove forgets the stored enrollment of an account; those of other accounts
// stay.
func (s rows) remove(ctx context.Context, accountID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateTimeout)
	defer cancel()
	return s.state.DeleteState(ctx, s.key(accountID))
}
