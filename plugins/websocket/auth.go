package websocket

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	modeCapability = "capability-token"
	modeSigned     = "signed-bearer-token"
	// minSecretBytes is what HS256 needs (spec 8.4).
	minSecretBytes = 32
	maxSecretFile  = 64 << 10
)

// The bodies of 401 answers (spec 8.4).
const (
	textMissing     = "missing websocket bearer token"
	textHeader      = "invalid authorization header"
	textToken       = "invalid websocket bearer token"
	textJWT         = "invalid websocket jwt"
	textExpired     = "expired websocket jwt"
	textNotYet      = "websocket jwt is not valid yet"
	textIssuer      = "websocket jwt issuer mismatch"
	textAudience    = "websocket jwt audience mismatch"
	bearerScheme    = "bearer"
	identityClaim   = "sub"
	maxIdentityLen  = 200
	maxUserAgentLen = 200
)

// An authenticator decides about upgrades. It is safe for concurrent use.
type authenticator struct {
	mode     string
	token    [sha256.Size]byte // of capability-token: the hash of the token
	secret   pluginsdk.Secret  // of signed-bearer-token
	issuer   string
	audience string
	skew     int64 // seconds
}

// A denied is the body of a 401 answer.
type denied string

func (d denied) Error() string { return string(d) }

// newAuthenticator reads the secrets; nil means that no auth is configured. The
// errors are complaints about the configuration.
func newAuthenticator(c *authConfig) (*authenticator, error) {
	if c == nil {
		return nil, nil
	}
	a := &authenticator{mode: c.Mode, issuer: strings.TrimSpace(c.Issuer), audience: strings.TrimSpace(c.Audience)}
	var err error
	switch c.Mode {
	case modeCapability:
		err = a.loadToken(c)
	case modeSigned:
		err = a.loadSecret(c)
	case "":
		err = fmt.Errorf("websocket auth settings require auth.mode %q or %q", modeCapability, modeSigned)
	default:
		err = fmt.Errorf("auth.mode is %q, want %q or %q", c.Mode, modeCapability, modeSigned)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", pluginsdk.ErrInvalidConfig, err)
	}
	return a, nil
}

func (a *authenticator) loadToken(c *authConfig) error {
	if c.SharedSecretFile != "" || c.Issuer != "" || c.Audience != "" || c.MaxClockSkew != 0 {
		return fmt.Errorf("auth.shared_secret_file, auth.issuer, auth.audience and auth.max_clock_skew require auth.mode %q", modeSigned)
	}
	switch {
	case c.TokenFile != "" && c.TokenSHA256 != "":
		return errors.New("auth.token_file and auth.token_sha256 are both set; one is enough")
	case c.TokenSHA256 != "":
		sum, err := hex.DecodeString(strings.TrimSpace(c.TokenSHA256))
		if err != nil || len(sum) != sha256.Size {
			return fmt.Errorf("auth.token_sha256 is not %d hexadecimal digits", 2*sha256.Size)
		}
		copy(a.token[:], sum)
		return nil
	case c.TokenFile == "":
		return fmt.Errorf("auth.token_file (or auth.token_sha256) is required when auth.mode is %q", modeCapability)
	}
	token, err := readSecret("auth.token_file", c.TokenFile)
	if err != nil {
		return err
	}
	a.token = sha256.Sum256([]byte(token))
	return nil
}

func (a *authenticator) loadSecret(c *authConfig) error {
	if c.TokenFile != "" || c.TokenSHA256 != "" {
		return fmt.Errorf("auth.token_file and auth.token_sha256 require auth.mode %q, not %q", modeCapability, modeSigned)
	}
	if c.SharedSecretFile == "" {
		return fmt.Errorf("auth.shared_secret_file is required when auth.mode is %q", modeSigned)
	}
	a.skew = int64(defaultClockSkew / time.Second)
	if c.MaxClockSkew < 0 {
		return fmt.Errorf("auth.max_clock_skew is %v, want 0 or more", time.Duration(c.MaxClockSkew))
	}
	if c.MaxClockSkew != 0 {
		a.skew = int64(time.Duration(c.MaxClockSkew) / time.Second)
	}
	secret, err := readSecret("auth.shared_secret_file", c.SharedSecretFile)
	if err != nil {
		return err
	}
	if len(secret) < minSecretBytes {
		return fmt.Errorf("signed websocket bearer secret %s must be at least %d bytes", c.SharedSecretFile, minSecretBytes)
	}
	a.secret = pluginsdk.Secret(secret)
	return nil
}

// readSecret reads a file that only its owner may read.
func readSecret(key, path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s must be an absolute path; it is %q", key, path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("failed to read websocket auth secret %s: %w", path, err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("websocket auth secret %s can be read by others (mode %v); chmod 600 %s", path, info.Mode().Perm(), path)
	}
	if info.Size() > maxSecretFile {
		return "", fmt.Errorf("websocket auth secret %s has %d bytes, more than %d", path, info.Size(), maxSecretFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("failed to read websocket auth secret %s: %w", path, err)
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("failed to read websocket auth secret %s: %w: not UTF-8", path, fs.ErrInvalid)
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("websocket auth secret %s must not be empty", path)
	}
	return s, nil
}

// check decides about the values of an Authorization header. It returns who
// the peer is, if the token says so, or a [denied].
func (a *authenticator) check(headers []string, now time.Time) (identity string, err error) {
	if a == nil {
		return "", nil
	}
	if len(headers) == 0 {
		return "", denied(textMissing)
	}
	token, err := bearer(headers[0])
	if err != nil || len(headers) > 1 {
		return "", denied(textHeader)
	}
	if a.mode == modeCapability {
		sum := sha256.Sum256([]byte(token))
		if subtle.ConstantTimeCompare(sum[:], a.token[:]) != 1 {
			return "", denied(textToken)
		}
		return "", nil
	}
	return a.checkJWT(token, now)
}

// bearer returns the token of an Authorization header.
func bearer(header string) (string, error) {
	if !utf8.ValidString(header) {
		return "", denied(textHeader)
	}
	scheme, token, ok := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !ok || !strings.EqualFold(scheme, bearerScheme) || token == "" {
		return "", denied(textHeader)
	}
	return token, nil
}

func (a *authenticator) checkJWT(token string, now time.Time) (string, error) {
	p := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithJSONNumber(), jwt.WithoutClaimsValidation())
	claims := jwt.MapClaims{}
	if _, err := p.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return []byte(string(a.secret)), nil }); err != nil {
		return "", denied(textJWT)
	}
	exp, ok, err := integer(claims, "exp")
	if err != nil || !ok {
		return "", denied(textJWT)
	}
	nbf, hasNbf, err := integer(claims, "nbf")
	if err != nil {
		return "", denied(textJWT)
	}
	unix := now.Unix()
	switch {
	case unix > addSaturated(exp, a.skew):
		return "", denied(textExpired)
	case hasNbf && unix < addSaturated(nbf, -a.skew):
		return "", denied(textNotYet)
	case a.issuer != "" && claims["iss"] != a.issuer:
		return "", denied(textIssuer)
	case a.audience != "" && !contains(claims["aud"], a.audience):
		return "", denied(textAudience)
	}
	identity, _ := claims[identityClaim].(string)
	return clip(identity, maxIdentityLen), nil
}

// integer returns a claim that must be one if it is there.
func integer(c jwt.MapClaims, name string) (int64, bool, error) {
	v, ok := c[name]
	if !ok || v == nil {
		return 0, false, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return 0, true, denied(textJWT)
	}
	i, err := n.Int64()
	return i, true, err
}

// contains reports whether an aud claim, a string or a list, names want.
func contains(aud any, want string) bool {
	switch v := aud.(type) {
	case string:
		return v == want
	case []any:
		for _, e := range v {
			if e == want {
				return true
			}
		}
	}
	return false
}

func addSaturated(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

// clip cuts s to at most n bytes, at a character's boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
