package credentials

import "github.com/transporthost/transporthost/shared/transport"

// Why there is nothing for plugins: the texts of spec §3.4, which people search
// for.
const (
	textNoAuth    = "remote control requires ChatGPT authentication"
	textAPIKey    = "remote control requires ChatGPT authentication; API key auth is not supported"
	textNoToken   = "remote control cannot read ChatGPT authentication token: Token data is not available."
	textNoAccount = "remote control enrollment is waiting for a ChatGPT account id"
)

// What a recovery says (spec §3.6, §3.7).
const (
	textNoSteps    = "No more recovery steps available."
	textSignedOut  = "Your access token could not be refreshed because you have since logged out or signed in to another account. Please sign in again."
	textExpired    = "Your access token could not be refreshed because your refresh token has expired. Please log out and sign in again."
	textReused     = "Your access token could not be refreshed because your refresh token was already used. Please log out and sign in again."
	textRevoked    = "Your access token could not be refreshed because your refresh token was revoked. Please log out and sign in again."
	textNotAllowed = "Your access token could not be refreshed. Please log out and sign in again."
)

// An unusable says in the spec's words why there are no credentials. It is
// [transport.ErrNoCredentials].
type unusable string

func (e unusable) Error() string        { return string(e) }
func (e unusable) Is(target error) bool { return target == transport.ErrNoCredentials }

// A permanent failure to refresh repeats itself until the tokens are others.
type permanent string

func (e permanent) Error() string { return string(e) }

// A transient failure to refresh may not repeat itself.
type transient struct{ err error }

func (e transient) Error() string { return "Failed to refresh token: " + e.err.Error() }
func (e transient) Unwrap() error { return e.err }

// A problem is why a file cannot be used, in the reference's words.
type problem string

func (e problem) Error() string { return string(e) }
