package websocket

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A certificate is the listener's, and follows its files: a renewed one is
// used for the next handshake.
type certificate struct {
	cfg tlsConfig

	mu      sync.Mutex // guards what follows
	loaded  *tls.Certificate
	changed time.Time // of the files, when they were loaded
	looked  time.Time // at the files
}

// lookEvery bounds how often the files are looked at.
const lookEvery = time.Second

func loadCertificate(cfg tlsConfig) (*certificate, error) {
	c := &certificate{cfg: cfg}
	pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%w: tls.cert_file %s and tls.key_file %s: %w", pluginsdk.ErrInvalidConfig, cfg.CertFile, cfg.KeyFile, err)
	}
	c.loaded, c.changed, c.looked = &pair, c.modified(), time.Now()
	return c, nil
}

// modified is when the newer of the two files changed.
func (c *certificate) modified() time.Time {
	var latest time.Time
	for _, path := range []string{c.cfg.CertFile, c.cfg.KeyFile} {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(latest) {
			latest = info.ModTime()
		}
	}
	return latest
}

// current returns the certificate for a handshake. New files that do not fit
// together, perhaps because they are being replaced, leave the old one in use.
func (c *certificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= lookEvery {
		c.looked = time.Now()
		if m := c.modified(); !m.Equal(c.changed) {
			if pair, err := tls.LoadX509KeyPair(c.cfg.CertFile, c.cfg.KeyFile); err == nil {
				c.loaded, c.changed = &pair, m
			}
		}
	}
	return c.loaded, nil
}

func (c *certificate) listener(l net.Listener) net.Listener {
	return tls.NewListener(l, &tls.Config{
		GetCertificate: c.current,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"}, // WebSocket needs it
	})
}
