package credentials

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/transporthost/transporthost/shared/transport"
)

// A Mode says what kind of credentials the file holds.
type Mode string

// The modes; "" is none.
const (
	ChatGPT Mode = "chatgpt"
	APIKey  Mode = "apikey"
)

// auth is what auth.json says (spec §3.1). Its zero value is "no auth". Two of
// them are equal if nothing that matters differs.
type auth struct {
	mode        Mode
	apiKey      transport.Secret
	tokens      tokens // zero if the file has none
	lastRefresh time.Time
}

type tokens struct {
	id, access, refresh transport.Secret
	account             string // "" if the file has none; never the claim of a token (spec §3.2)
	fedRAMP             bool   // a claim of id
}

func (a auth) none() bool { return a.mode == "" }

// usable returns what plugins get of a, or the spec's text of why there is
// nothing (§3.4). It says nothing of the generation.
func (a auth) usable() (transport.Credentials, error) {
	switch {
	case a.none():
		return transport.Credentials{}, unusable(textNoAuth)
	case a.mode != ChatGPT:
		return transport.Credentials{}, unusable(textAPIKey)
	case a.tokens == tokens{} || a.lastRefresh.IsZero():
		return transport.Credentials{}, unusable(textNoToken)
	case a.tokens.account == "":
		return transport.Credentials{}, unusable(textNoAccount)
	}
	return transport.Credentials{AccessToken: a.tokens.access, AccountID: a.tokens.account, FedRAMP: a.tokens.fedRAMP}, nil
}

// maxAge is after how long tokens are refreshed that do not say themselves when
// they expire (spec §3.3).
const maxAge = 8 * 24 * time.Hour

// stale reports whether a should be refreshed before it is used.
func (a auth) stale(now time.Time) bool {
	if a.mode != ChatGPT || a.tokens == (tokens{}) {
		return false
	}
	if expires, ok := expiry(string(a.tokens.access)); ok {
		return !expires.After(now)
	}
	return !a.lastRefresh.IsZero() && a.lastRefresh.Before(now.Add(-maxAge))
}

// parseAuth reads the content of an auth.json. Fields that it does not know are
// nobody's concern. No error tells anything of the content: it goes into
// status and logs.
func parseAuth(content []byte) (auth, error) {
	if len(bytes.TrimSpace(content)) == 0 {
		return auth{}, errors.New("the file is empty")
	}
	if !utf8.Valid(content) {
		return auth{}, errors.New("the file is not UTF-8")
	}
	file, err := fieldsOf(content)
	if err != nil {
		return auth{}, err
	}
	var a auth
	var mode, key, last *string
	var inner *json.RawMessage
	if err := errors.Join(file.read("auth_mode", &mode), file.read("OPENAI_API_KEY", &key),
		file.read("last_refresh", &last), file.read("tokens", &inner)); err != nil {
		return auth{}, err
	}
	switch {
	case mode != nil:
		a.mode = Mode(*mode)
	case key != nil:
		a.mode = APIKey
	default:
		a.mode = ChatGPT
	}
	switch {
	case a.mode != ChatGPT && a.mode != APIKey:
		return auth{}, fmt.Errorf("auth_mode is neither %q nor %q", ChatGPT, APIKey)
	case a.mode == APIKey && key == nil:
		return auth{}, problem("API key auth is missing a key.")
	case key != nil:
		a.apiKey = transport.Secret(*key)
	}
	if last != nil {
		if a.lastRefresh, err = time.Parse(time.RFC3339, *last); err != nil {
			return auth{}, errors.New("last_refresh is not a time of RFC 3339")
		}
		a.lastRefresh = a.lastRefresh.UTC() // comparable with ==
	}
	if inner != nil {
		if a.tokens, err = parseTokens(*inner); err != nil {
			return auth{}, err
		}
	}
	return a, nil
}

func parseTokens(content []byte) (tokens, error) {
	file, err := fieldsOf(content)
	if err != nil {
		return tokens{}, fmt.Errorf("tokens: %w", err)
	}
	var id, access, refresh, account *string
	if err := errors.Join(file.read("id_token", &id), file.read("access_token", &access),
		file.read("refresh_token", &refresh), file.read("account_id", &account)); err != nil {
		return tokens{}, fmt.Errorf("tokens: %w", err)
	}
	if id == nil || access == nil || refresh == nil {
		return tokens{}, errors.New("tokens: id_token, access_token and refresh_token must all be there")
	}
	t := tokens{id: transport.Secret(*id), access: transport.Secret(*access), refresh: transport.Secret(*refresh)}
	if account != nil {
		t.account = *account
	}
	if t.fedRAMP, err = fedRAMP(*id); err != nil {
		return tokens{}, err
	}
	return t, nil
}

// fields are the members of a JSON object by their exact names: encoding/json
// would take "Tokens" for "tokens" in a struct.
type fields map[string]json.RawMessage

func fieldsOf(content []byte) (fields, error) {
	var f fields
	err := json.Unmarshal(content, &f)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at := min(max(int(syntax.Offset), 0), len(content))
		line := 1 + bytes.Count(content[:at], []byte("\n"))
		return nil, fmt.Errorf("not JSON: line %d, byte %d", line, at) // the error itself quotes a character
	}
	if err != nil || f == nil {
		return nil, errors.New("not a JSON object")
	}
	return f, nil
}

// read stores the member name in to, a pointer to a pointer, which stays nil if
// the member is missing or null.
func (f fields) read(name string, to any) error {
	raw, ok := f[name]
	if !ok || string(raw) == "null" { // a *json.RawMessage would hold the null
		return nil
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%s has the wrong type", name)
	}
	return nil
}

// claims returns the payload of a JWT. Its signature is not checked: the token
// is the user's own, and only tells when to refresh and how to route.
func claims(token string) (fields, error) {
	parts := strings.SplitN(token, ".", 4)
	if len(parts) < 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return nil, errors.New("not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, errors.New("a JWT whose payload is not base64")
	}
	f, err := fieldsOf(payload)
	if err != nil {
		return nil, errors.New("a JWT whose payload is not a JSON object")
	}
	return f, nil
}

// fedRAMP reads the claim of an id token. The token must be a JWT.
func fedRAMP(id string) (bool, error) {
	c, err := claims(id)
	if err != nil {
		return false, fmt.Errorf("tokens: id_token is %w", err)
	}
	var inner *json.RawMessage
	if err := c.read("https://api.openai.com/auth", &inner); err != nil || inner == nil {
		return false, err
	}
	object, err := fieldsOf(*inner)
	if err != nil {
		return false, errors.New("tokens: id_token has a claim of the wrong type")
	}
	var is *bool
	if err := object.read("chatgpt_account_is_fedramp", &is); err != nil {
		return false, fmt.Errorf("tokens: id_token: %w", err)
	}
	return is != nil && *is, nil
}

// expiry reads when a token expires, if it is one that says it.
func expiry(token string) (time.Time, bool) {
	c, err := claims(token)
	if err != nil {
		return time.Time{}, false
	}
	var exp *float64
	if c.read("exp", &exp) != nil || exp == nil || math.Abs(*exp) > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(*exp), 0), true
}

// replaced returns content with what a refresh brought. It keeps what it does
// not know: other programs store things there too.
func replaced(content []byte, a auth) ([]byte, error) {
	file, err := fieldsOf(content)
	if err != nil {
		return nil, err
	}
	inner, err := fieldsOf(file["tokens"])
	if err != nil {
		return nil, err
	}
	inner["id_token"] = text(string(a.tokens.id))
	inner["access_token"] = text(string(a.tokens.access))
	inner["refresh_token"] = text(string(a.tokens.refresh))
	if file["tokens"], err = pretty(inner); err != nil {
		return nil, err
	}
	file["last_refresh"] = text(a.lastRefresh.Format(time.RFC3339Nano))
	if _, ok := file["OPENAI_API_KEY"]; !ok {
		file["OPENAI_API_KEY"] = json.RawMessage("null") // the reference always writes it
	}
	return pretty(file)
}

func pretty(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// text is s as a JSON string.
func text(s string) json.RawMessage {
	b, _ := json.Marshal(s) // a string always marshals
	return b
}
