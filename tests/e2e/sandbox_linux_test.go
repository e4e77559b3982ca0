package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// confined checks that a transport is what its status says, and returns that.
func confined(t *testing.T, s host.TransportStatus) string {
	t.Helper()
	if s.Sandbox == nil {
		t.Fatalf("the status of %s says nothing of its sandbox", s.Instance)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	for said, kernel := range map[string]string{"no new privileges": "\nNoNewPrivs:\t1\n", "system calls (seccomp)": "\nSeccomp:\t2\n"} {
		if !strings.Contains(s.Sandbox.String(), said) || !strings.Contains(string(b), kernel) {
			t.Errorf("%s: the status says %s, the kernel\n%s", s.Instance, s.Sandbox, b)
		}
	}
	return s.Sandbox.String()
}

// writeCertificate puts a certificate and its key in the place of those before,
// as those do that renew them: by other files.
func writeCertificate(t *testing.T, dir string, c tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
	} {
		path := filepath.Join(dir, name)
		err := os.WriteFile(path+".new", pem.EncodeToMemory(b), 0o600)
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestLocalTransportsInTheirSandbox: nobody has to say anything for what the
// configuration names, also when it is renewed.
func TestLocalTransportsInTheirSandbox(t *testing.T) {
	const name = "host.example.com"
	dir, token := t.TempDir(), "0123456789abcdef0123456789abcdef"
	first, firstCA := authority(t, name)
	writeCertificate(t, dir, first.Certificates[0])
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "host.hcl")
	text := fmt.Sprintf(`application { builtin = "echo" }
transport "stdio" {}
transport "websocket" {
  listen        = ["wss://127.0.0.1:0"]
  auth          = { mode = "capability-token", token_file = %q }
  tls           = { cert_file = %q, key_file = %q }
  allowed_hosts = [%q]
}
transport "free" {
  plugin  = "websocket"
  listen  = ["ws://127.0.0.1:0"]
  sandbox = "off"
}
transport "roomy" {
  plugin  = "websocket"
  listen  = ["ws://127.0.0.1:0"]
  sandbox = { memory = "1GiB", files = 1000, network = true, processes = true }
}
`, filepath.Join(dir, "token"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), name)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h := start(t, "--config", config)
	dial := func(caFile string) (*websocket.Conn, error) {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		d := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: name}, HandshakeTimeout: limit}
		ws, resp, err := d.Dial(h.url(), http.Header{"Authorization": {"Bearer " + token}})
		if resp != nil {
			_ = resp.Body.Close()
		}
		return ws, err
	}
	exchange := func(ws *websocket.Conn) {
		t.Helper()
		send(t, ws, `{"id":1,"method":"m","params":[2]}`)
		if got := receive(t, ws); got != `{"jsonrpc":"2.0","id":1,"result":[2]}` {
			t.Errorf("got %s", got)
		}
		_ = ws.Close()
	}
	ws, err := dial(firstCA)
	if err != nil {
		t.Fatal(err)
	}
	exchange(ws)
	stdioPeer(t, h, "1")

	second, secondCA := authority(t, name)
	writeCertificate(t, dir, second.Certificates[0])
	for deadline := time.Now().Add(limit); ; {
		if ws, err = dial(secondCA); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the renewed certificate is not served: %v", err)
		}
	}
	exchange(ws)

	for _, p := range h.status().Plugins {
		if p.Instance == "free" {
			if !p.Sandbox.Off {
				t.Errorf("free has the sandbox %s", p.Sandbox)
			}
			continue
		}
		said := confined(t, p)
		want := []string{"no sockets of its own", "no processes of its own", "memory ≤ 2 GiB", "no core dumps"}
		if p.Instance == "roomy" {
			want = []string{"sockets of TCP, UDP and unix only", "memory ≤ 1 GiB", "files ≤ 1000"}
		}
		for _, w := range want {
			if !strings.Contains(said, w) {
				t.Errorf("%s has the sandbox %s, want %s", p.Instance, said, w)
			}
		}
	}
	out, _ := h.ask("status")
	if n := strings.Count(out, "sandbox: "); n != 4 || !strings.Contains(out, "sandbox: off, as the configuration says") {
		t.Errorf("the status is\n%s", out)
	}
}

// TestRemoteControlInItsSandbox may connect, and read the id beside auth.json,
// which it may not read.
func TestRemoteControlInItsSandbox(t *testing.T) {
	r := newRelay(t, backend.Options{Profile: backend.Profile3})
	if err := os.WriteFile(filepath.Join(r.home, "installation_id"), []byte("11111111-2222-4333-8444-555555555555"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.signIn(backend.AuthChatGPT, "")
	h := r.start(setup{})
	r.connected(h, 1)
	if e := r.Enrollments(); len(e) != 1 || e[0].InstallationID != "11111111-2222-4333-8444-555555555555" {
		t.Errorf("the enrollments are %+v, want the installation id beside auth.json", e)
	}
	if said := confined(t, h.remote()); !strings.Contains(said, "sockets of TCP, UDP and unix only") {
		t.Errorf("it has the sandbox %s", said)
	}
}
