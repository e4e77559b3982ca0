package websocket

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// Defaults of the configuration.
const (
	defaultMaxConnections = 1000             // file descriptors of a usual limit, with room
	defaultUpgradeRate    = 500              // upgrades a second: a reconnecting crowd, not a flood
	defaultHeaderTimeout  = 10 * time.Second // from connect to the end of the request
	defaultPingInterval   = 20 * time.Second // under the idle limits of proxies (60 s)
	defaultPongTimeout    = 45 * time.Second // two pings and some
	defaultClockSkew      = 30 * time.Second // spec 8.4
	closeGrace            = 2 * time.Second  // to write what is pending, and for the peer's close frame
	bodyGrace             = time.Second      // for what a refused peer still sends
	maxHeaderBytes        = 16 << 10
)

// inConfigFile tells users of flags alone where auth and tls can be set.
const inConfigFile = `in the transport "websocket" block of a configuration file (--config FILE); there is no flag for it`

// config is this plugin's part of a transport block.
type config struct {
	Listen               []string    `json:"listen"`
	Auth                 *authConfig `json:"auth"`
	TLS                  *tlsConfig  `json:"tls"`
	AllowedOrigins       []string    `json:"allowed_origins"`
	AllowedHosts         []string    `json:"allowed_hosts"`
	MaxConnections       int         `json:"max_connections"`
	MaxUpgradesPerSecond int         `json:"max_upgrades_per_second"`
	MaxMessageBytes      int         `json:"max_message_bytes"`
	HeaderTimeout        duration    `json:"header_timeout"`
	PingInterval         duration    `json:"ping_interval"`
	PongTimeout          duration    `json:"pong_timeout"`
}

type authConfig struct {
	Mode             string   `json:"mode"`
	TokenFile        string   `json:"token_file"`
	TokenSHA256      string   `json:"token_sha256"`
	SharedSecretFile string   `json:"shared_secret_file"`
	Issuer           string   `json:"issuer"`
	Audience         string   `json:"audience"`
	MaxClockSkew     duration `json:"max_clock_skew"`
}

type tlsConfig struct {
	CertFile string `json:"cert_file"`
	KeyFile  string `json:"key_file"`
}

// A duration is written as "30s".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

func configKeys() []pluginsdk.ConfigKey {
	type key = pluginsdk.ConfigKey
	return []key{
		{Name: "listen", Type: pluginsdk.TypeStrings, Required: true, Help: "addresses: ws://IP:PORT, wss://IP:PORT, unix:///PATH"},
		{Name: "auth", Type: pluginsdk.TypeObject, Help: "how peers authenticate; needed for addresses that are not loopback", Keys: []key{
			{Name: "mode", Type: pluginsdk.TypeString, Required: true, Allowed: []string{modeCapability, modeSigned}, Help: "kind of bearer token"},
			{Name: "token_file", Type: pluginsdk.TypeString, Help: "file with the token, for capability-token"},
			{Name: "token_sha256", Type: pluginsdk.TypeString, Help: "SHA-256 of the token in hexadecimal, instead of token_file"},
			{Name: "shared_secret_file", Type: pluginsdk.TypeString, Help: "file with the HS256 secret, for signed-bearer-token"},
			{Name: "issuer", Type: pluginsdk.TypeString, Help: "required iss claim"},
			{Name: "audience", Type: pluginsdk.TypeString, Help: "required aud claim"},
			{Name: "max_clock_skew", Type: pluginsdk.TypeDuration, Help: "tolerance for exp and nbf; default 30s"},
		}},
		{Name: "tls", Type: pluginsdk.TypeObject, Help: "certificate for wss:// addresses; reloaded when it changes", Keys: []key{
			{Name: "cert_file", Type: pluginsdk.TypeString, Required: true, Help: "PEM certificate chain"},
			{Name: "key_file", Type: pluginsdk.TypeString, Required: true, Help: "PEM private key"},
		}},
		{Name: "allowed_origins", Type: pluginsdk.TypeStrings, Help: "Origin headers of browsers that may connect; default: none"},
		{Name: "allowed_hosts", Type: pluginsdk.TypeStrings, Help: "names in the Host header, beside localhost and IP addresses"},
		{Name: "max_connections", Type: pluginsdk.TypeNumber, Help: "default 1000"},
		{Name: "max_upgrades_per_second", Type: pluginsdk.TypeNumber, Help: "default 500"},
		{Name: "max_message_bytes", Type: pluginsdk.TypeNumber, Help: "default: the host's limit"},
		{Name: "header_timeout", Type: pluginsdk.TypeDuration, Help: "default 10s"},
		{Name: "ping_interval", Type: pluginsdk.TypeDuration, Help: "default 20s"},
		{Name: "pong_timeout", Type: pluginsdk.TypeDuration, Help: "default 45s"},
	}
}

// withDefaults fills in what is not set. hostLimit is the host's limit of a
// message.
func (c config) withDefaults(hostLimit int) config {
	c.MaxConnections = cmp.Or(c.MaxConnections, defaultMaxConnections)
	c.MaxUpgradesPerSecond = cmp.Or(c.MaxUpgradesPerSecond, defaultUpgradeRate)
	c.MaxMessageBytes = cmp.Or(c.MaxMessageBytes, hostLimit)
	c.HeaderTimeout = cmp.Or(c.HeaderTimeout, duration(defaultHeaderTimeout))
	c.PingInterval = cmp.Or(c.PingInterval, duration(defaultPingInterval))
	c.PongTimeout = cmp.Or(c.PongTimeout, duration(defaultPongTimeout))
	return c
}

// validate returns all complaints, each an [pluginsdk.ErrInvalidConfig].
func (c config) validate(hostLimit int) error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: %s", pluginsdk.ErrInvalidConfig, fmt.Sprintf(format, args...)))
	}
	if len(c.Listen) == 0 {
		complain(`listen is empty, want at least one address, such as "ws://127.0.0.1:4500"`)
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"max_connections", c.MaxConnections}, {"max_upgrades_per_second", c.MaxUpgradesPerSecond}, {"max_message_bytes", c.MaxMessageBytes}} {
		if n.value < 1 {
			complain("%s is %d, want 1 or more", n.name, n.value)
		}
	}
	if c.MaxMessageBytes > hostLimit {
		complain("max_message_bytes is %d, more than the host's %d", c.MaxMessageBytes, hostLimit)
	}
	for _, d := range []struct {
		name  string
		value duration
	}{{"header_timeout", c.HeaderTimeout}, {"ping_interval", c.PingInterval}, {"pong_timeout", c.PongTimeout}} {
		if d.value <= 0 {
			complain("%s is %v, want more than 0", d.name, time.Duration(d.value))
		}
	}
	if c.PongTimeout <= c.PingInterval {
		complain("pong_timeout is %v, want more than ping_interval, which is %v", time.Duration(c.PongTimeout), time.Duration(c.PingInterval))
	}
	return errors.Join(errs...)
}

// A listenAddress is one entry of listen.
type listenAddress struct {
	url      string
	tls      bool
	unix     bool
	loopback bool
}

func parseListen(address string) (listenAddress, error) {
	u, err := url.Parse(address)
	if err == nil && u.Scheme == "unix" && u.Path != "" {
		return listenAddress{url: address, unix: true}, nil
	}
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" {
		return listenAddress{}, fmt.Errorf("%w: unsupported listen URL `%s`; expected `ws://IP:PORT`, `wss://IP:PORT` or `unix://PATH`", pluginsdk.ErrInvalidConfig, address)
	}
	ap, err := netip.ParseAddrPort(u.Host)
	if err != nil || u.Path != "" && u.Path != "/" {
		return listenAddress{}, fmt.Errorf("%w: invalid websocket listen URL `%s`; expected `%s://IP:PORT`", pluginsdk.ErrInvalidConfig, address, u.Scheme)
	}
	return listenAddress{url: address, tls: u.Scheme == "wss", loopback: ap.Addr().Unmap().IsLoopback()}, nil
}

// checkExposure refuses what would let anybody on the network in (spec 8.3).
func checkExposure(a listenAddress, bound string, auth bool) error {
	if a.unix || a.loopback || auth {
		return nil
	}
	addr := bound
	if u, err := url.Parse(bound); err == nil {
		addr = u.Host
	}
	return fmt.Errorf("%w: refusing to start non-loopback websocket listener %s without auth; configure auth = { mode = %q } or auth = { mode = %q } %s",
		pluginsdk.ErrInvalidConfig, addr, modeCapability, modeSigned, inConfigFile)
}

// hostName returns the name in a Host header, without the port.
func hostName(header string) string {
	if h, _, err := net.SplitHostPort(header); err == nil {
		return h
	}
	if n := len(header); n > 1 && header[0] == '[' && header[n-1] == ']' {
		return header[1 : n-1]
	}
	return header
}
