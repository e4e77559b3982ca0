package backend

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// MadeUpAccount begins the id of every account that nobody named.
	MadeUpAccount = "acct-relay-"

	defaultAccessLifetime = 10 * 24 * time.Hour
)

// AccountOptions describes an account that the backend knows. The zero value
// makes one up.
type AccountOptions struct {
	ID             string
	Email          string
	Plan           string
	FedRAMP        bool
	AccessToken    transport.Secret // "": a JWT with an expiry
	AccessLifetime time.Duration    // of the tokens that the token endpoint gives; 0: 10 days
}

// An Account is an account with the tokens that are good now.
type Account struct {
	ID           string
	Email        string
	Plan         string
	FedRAMP      bool
	IDToken      transport.Secret
	AccessToken  transport.Secret
	RefreshToken transport.Secret
}

type account struct {
	Account
	lifetime time.Duration
	access   map[string]time.Time // good access tokens, and until when
	spent    map[string]string    // refresh tokens of the past, and the code that they are refused with
}

// AddAccount makes an account and its first tokens.
func (b *Backend) AddAccount(o AccountOptions) Account {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := &account{lifetime: cmp.Or(o.AccessLifetime, defaultAccessLifetime),
		access: map[string]time.Time{}, spent: map[string]string{}}
	a.ID = cmp.Or(o.ID, MadeUpAccount+strings.ToLower(rand.Text()[:12]))
	a.Email = cmp.Or(o.Email, "someone@example.com")
	a.Plan = cmp.Or(o.Plan, "pro")
	a.FedRAMP = o.FedRAMP
	b.renew(a)
	if o.AccessToken != "" {
		a.access = map[string]time.Time{string(o.AccessToken): b.now().Add(a.lifetime)}
		a.AccessToken = o.AccessToken
	}
	b.accounts = append(b.accounts, a)
	return a.Account
}

// renew gives an account new tokens beside those it has. b.mu is held.
func (b *Backend) renew(a *account) {
	expires := b.now().Add(a.lifetime)
	auth := map[string]any{"chatgpt_account_id": a.ID, "chatgpt_plan_type": a.Plan, "chatgpt_user_id": "user-" + a.ID}
	if a.FedRAMP {
		auth["chatgpt_account_is_fedramp"] = true
	}
	claims := map[string]any{"email": a.Email, "exp": expires.Unix(), "https://api.openai.com/auth": auth}
	a.IDToken = fakeJWT(claims)
	a.AccessToken = fakeJWT(map[string]any{"exp": expires.Unix(), "jti": rand.Text()})
	a.RefreshToken = transport.Secret("rt_" + rand.Text())
	a.access[string(a.AccessToken)] = expires
}

// fakeJWT looks like a JSON Web Token; its signature is nobody's.
func fakeJWT(claims map[string]any) transport.Secret {
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // maps of strings and numbers always marshal
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return transport.Secret(part(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + part(claims) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(rand.Text())))
}

// Account is an account by its id; "" is the first one.
func (b *Backend) Account(id string) (Account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, err := b.account(id)
	if err != nil {
		return Account{}, err
	}
	return a.Account, nil
}

func (b *Backend) account(id string) (*account, error) {
	for _, a := range b.accounts {
		if id == "" || a.ID == id {
			return a, nil
		}
	}
	return nil, fmt.Errorf("there is no account %q", id)
}

// RotateAccess gives an account new tokens and refuses its older access
// tokens. The refresh token before is refused as used.
func (b *Backend) RotateAccess(id string) (Account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, err := b.account(id)
	if err != nil {
		return Account{}, err
	}
	a.spent[string(a.RefreshToken)] = "refresh_token_reused"
	clear(a.access)
	b.renew(a)
	return a.Account, nil
}

// RevokeAccess refuses all access tokens of an account from now on; its
// refresh token gets new ones.
func (b *Backend) RevokeAccess(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, err := b.account(id)
	if err == nil {
		clear(a.access)
	}
	return err
}

// RevokeRefresh refuses the refresh token of an account with a code, such as
// "refresh_token_expired", "refresh_token_reused" or "refresh_token_invalidated".
func (b *Backend) RevokeRefresh(id, code string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, err := b.account(id)
	if err == nil {
		a.spent[string(a.RefreshToken)] = code
	}
	return err
}

// byAccess finds the account that an access token is good for. b.mu is held.
func (b *Backend) byAccess(token string) *account {
	for _, a := range b.accounts {
		if expires, ok := a.access[token]; ok && b.now().Before(expires) {
			return a
		}
	}
	return nil
}
