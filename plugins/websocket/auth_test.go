package websocket

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCapabilityToken is websocket_transport_rejects_missing_and_invalid_capability_tokens;
// the file ends with a line feed, as files do.
func TestCapabilityToken(t *testing.T) {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("open sesame")))
	for _, auth := range []map[string]any{
		{"mode": "capability-token", "token_file": secretFile(t, "open sesame\n")},
		{"mode": "capability-token", "token_sha256": sum},
	} {
		h := serve(t, map[string]any{"auth": auth})
		for _, tt := range []struct {
			name   string
			header []string
			code   int
			body   string
		}{
			{"none", nil, 401, "missing websocket bearer token"},
			{"no scheme", []string{"Authorization", "open"}, 401, "invalid authorization header"},
			{"other scheme", []string{"Authorization", "Basic b3Blbg=="}, 401, "invalid authorization header"},
			{"no token", []string{"Authorization", "Bearer  "}, 401, "invalid authorization header"},
			{"wrong token", []string{"Authorization", "Bearer open"}, 401, "invalid websocket bearer token"},
			{"token", []string{"Authorization", "Bearer open sesame"}, 101, ""},
			{"scheme in other letters", []string{"Authorization", "bEARER open sesame "}, 101, ""},
		} {
			t.Run(tt.name, func(t *testing.T) {
				code, body := get(t, h, "/", upgrade(tt.header...))
				if code != tt.code || body != tt.body {
					t.Errorf("got %d %q, want %d %q", code, body, tt.code, tt.body)
				}
			})
		}
		if code, _ := get(t, h, "/healthz", http.Header{}); code != 200 {
			t.Errorf("healthz without a token: %d", code)
		}
	}
}

// TestSignedBearerToken is websocket_transport_verifies_signed_short_lived_bearer_tokens
// and signed_bearer_token_verification_rejects_tampering, accepts_valid_token,
// accepts_multiple_audiences, rejects_alg_none_tokens and rejects_missing_exp.
func TestSignedBearerToken(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	now := time.Unix(1_800_000_000, 0)
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		s, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	hs256 := func(claims jwt.MapClaims) string { return sign(jwt.SigningMethodHS256, []byte(secret), claims) }
	with := func(more ...any) jwt.MapClaims {
		c := jwt.MapClaims{"exp": now.Unix() + 60, "iss": "me", "aud": "you", "sub": "jane"}
		for i := 0; i < len(more); i += 2 {
			c[more[i].(string)] = more[i+1]
		}
		return c
	}
	// signed_bearer_args_default_clock_skew_and_trim_optional_claims
	a, err := newAuthenticator(&authConfig{Mode: modeSigned, SharedSecretFile: secretFile(t, secret+"\n"), Issuer: " me ", Audience: "you\t"})
	if err != nil {
		t.Fatal(err)
	}
	without := with()
	delete(without, "exp")
	valid := hs256(with())
	for _, tt := range []struct {
		name, token, want string
	}{
		{"valid", valid, ""},
		{"several audiences", hs256(with("aud", []string{"him", "you"})), ""},
		{"expired within the skew", hs256(with("exp", now.Unix()-30)), ""},
		{"expired", hs256(with("exp", now.Unix()-31)), "expired websocket jwt"},
		{"exp at the end of time", hs256(with("exp", int64(math.MaxInt64))), ""},
		{"not yet, within the skew", hs256(with("nbf", now.Unix()+30)), ""},
		{"not yet", hs256(with("nbf", now.Unix()+31)), "websocket jwt is not valid yet"},
		{"another issuer", hs256(with("iss", "mallory")), "websocket jwt issuer mismatch"},
		{"no issuer", hs256(with("iss", nil)), "websocket jwt issuer mismatch"},
		{"another audience", hs256(with("aud", "him")), "websocket jwt audience mismatch"},
		{"no exp", hs256(without), "invalid websocket jwt"},
		{"exp with a fraction", hs256(with("exp", 1.5)), "invalid websocket jwt"},
		{"exp is text", hs256(with("exp", "soon")), "invalid websocket jwt"},
		{"nbf with a fraction", hs256(with("nbf", 1.5)), "invalid websocket jwt"},
		{"nbf is text", hs256(with("nbf", "later")), "invalid websocket jwt"},
		{"exp beyond 64 bits", hs256(with("exp", json.Number("9223372036854775808"))), "invalid websocket jwt"},
		{"nbf at the beginning of time", hs256(with("nbf", int64(math.MinInt64))), ""},
		{"no audience", hs256(with("aud", nil)), "websocket jwt audience mismatch"},
		{"other audiences", hs256(with("aud", []string{"him", "her"})), "websocket jwt audience mismatch"},
		{"another key", sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), with()), "invalid websocket jwt"},
		{"another algorithm", sign(jwt.SigningMethodHS512, []byte(secret), with()), "invalid websocket jwt"},
		{"no algorithm", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, with()), "invalid websocket jwt"},
		{"tampered", valid[:len(valid)-2] + "AA", "invalid websocket jwt"},
		{"not a token", "a.b.c", "invalid websocket jwt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			who, err := a.check([]string{"Bearer " + tt.token}, now)
			switch {
			case tt.want == "" && (err != nil || who != "jane"):
				t.Errorf("check: %q, %v; want jane", who, err)
			case tt.want != "" && (err == nil || err.Error() != tt.want):
				t.Errorf("check: %v, want %s", err, tt.want)
			}
		})
	}
}

// TestWrongTokensOverHTTP: every refusal of a signed token as the peer sees it
// (spec 8.4), and that the transport's name for the peer is the token's.
func TestWrongTokensOverHTTP(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	h := serve(t, map[string]any{"auth": map[string]any{
		"mode": modeSigned, "shared_secret_file": secretFile(t, secret), "issuer": "me", "audience": "you", "max_clock_skew": "5s",
	}})
	now := time.Now().Unix()
	token := func(more ...any) string {
		c := jwt.MapClaims{"exp": now + 3600, "iss": "me", "aud": "you", "sub": "jane"}
		for i := 0; i < len(more); i += 2 {
			c[more[i].(string)] = more[i+1]
		}
		s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + s
	}
	for _, tt := range []struct {
		name   string
		header []string // of Authorization
		want   string
	}{
		{"none", nil, "missing websocket bearer token"},
		{"empty", []string{""}, "invalid authorization header"},
		{"two", []string{token(), token()}, "invalid authorization header"},
		{"not text", []string{"Bearer \xff"}, "invalid authorization header"},
		{"other scheme", []string{"Basic " + strings.TrimPrefix(token(), "Bearer ")}, "invalid authorization header"},
		{"not a token", []string{"Bearer open sesame"}, "invalid websocket jwt"},
		{"tampered", []string{token()[:40] + "A" + token()[41:]}, "invalid websocket jwt"},
		{"expired", []string{token("exp", now-60)}, "expired websocket jwt"},
		{"not yet", []string{token("nbf", now+3600)}, "websocket jwt is not valid yet"},
		{"issuer", []string{token("iss", "mallory")}, "websocket jwt issuer mismatch"},
		{"audience", []string{token("aud", []string{"him"})}, "websocket jwt audience mismatch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := upgrade()
			if tt.header != nil {
				header["Authorization"] = tt.header
			}
			if code, body := get(t, h, "/", header); code != 401 || body != tt.want {
				t.Errorf("got %d %q, want 401 %q", code, body, tt.want)
			}
		})
	}
	ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), h.Addresses()[0], http.Header{"Authorization": {token()}})
	if err != nil {
		t.Fatalf("the right token: %v", err)
	}
	defer ws.Close()
	if _, o := h.NextOpened(); o.Peer.Identity != "jane" {
		t.Errorf("the host hears of %q, want jane", o.Peer.Identity)
	}
}

// pair writes a certificate for 127.0.0.1 and its key.
func pair(t *testing.T, dir, name string) (certFile, keyFile string, serial *big.Int) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, serial
}

// dialTLS connects and returns the serial number of the certificate.
func dialTLS(t *testing.T, h *pluginsdktest.Host) (*websocket.Conn, *big.Int) {
	t.Helper()
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the certificate is looked at below
	ws, _, err := d.DialContext(t.Context(), h.Addresses()[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	return ws, ws.NetConn().(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber
}

func TestTLSFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key, serial := pair(t, dir, "a")
	h := serve(t, map[string]any{"listen": []string{"wss://127.0.0.1:0"}, "max_upgrades_per_second": 1_000_000, "tls": map[string]any{"cert_file": cert, "key_file": key}})
	ws, got := dialTLS(t, h)
	if got.Cmp(serial) != 0 {
		t.Errorf("serial %v, want %v", got, serial)
	}
	id, _ := h.NextOpened()
	big := strings.Repeat("x", 1<<20)
	if err := ws.WriteMessage(websocket.TextMessage, []byte(big)); err != nil {
		t.Fatal(err)
	}
	h.Send(id, h.NextReceived(id))
	if got := receive(t, ws); got != big {
		t.Errorf("%d bytes came back over TLS", len(got))
	}

	// The files are replaced. They are looked at once a second.
	newCert, newKey, newSerial := pair(t, dir, "b")
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(pluginsdktest.Timeout)
	for {
		ws, got := dialTLS(t, h)
		_ = ws.Close()
		if got.Cmp(newSerial) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is never used")
		}
	}
}

func TestCertificateThatDoesNotMatchItsKey(t *testing.T) {
	dir := t.TempDir()
	cert, _, _ := pair(t, dir, "a")
	_, key, _ := pair(t, dir, "b")
	config, err := json.Marshal(map[string]any{"listen": []string{"wss://127.0.0.1:0"}, "tls": map[string]any{"cert_file": cert, "key_file": key}})
	if err != nil {
		t.Fatal(err)
	}
	err = pluginsdktest.Serve(t, New()).TryStart(pluginsdk.StartParams{Config: config})
	if err == nil || !strings.Contains(err.Error(), cert) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("Start: %v, want both files and that they do not match", err)
	}
}

func FuzzBearer(f *testing.F) {
	f.Add("Bearer x")
	f.Add("bearer\xff x")
	f.Fuzz(func(t *testing.T, header string) {
		token, err := bearer(header)
		if (err == nil) != (token != "") || token != strings.TrimSpace(token) {
			t.Errorf("bearer(%q) = %q, %v", header, token, err)
		}
	})
}

func FuzzHostName(f *testing.F) {
	for _, s := range []string{"localhost", "127.0.0.1:1", "[::1]:2", "[::1]", ":", "a:b:c"} {
		f.Add(s)
	}
	s := &server{cfg: config{AllowedHosts: []string{"desk.local"}}}
	f.Fuzz(func(t *testing.T, header string) {
		if s.hostAllowed(header, listenAddress{loopback: true}) && !strings.Contains(strings.ToLower(header), "localhost") &&
			!strings.Contains(strings.ToLower(header), "desk.local") {
			ip := net.ParseIP(strings.SplitN(hostName(header), "%", 2)[0])
			if ip == nil || !ip.IsLoopback() {
				t.Errorf("the Host %q passed on a loopback listener", header)
			}
		}
	})
}
