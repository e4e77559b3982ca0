package remotecontrol

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// Defaults of the configuration.
const (
	defaultURL        = "https://chatgpt.com/backend-api/"
	defaultOriginator = "codex_cli_rs" // what backends know the reference by
	noVersion         = "0.0.0"        // of a build without one
)

// originatorEnv is the variable that replaces defaultOriginator (spec 2.1).
const originatorEnv = "CODEX_INTERNAL_ORIGINATOR_OVERRIDE"

// config is this plugin's part of a transport block.
type config struct {
	URL                string           `json:"url"`
	Protocol           profile          `json:"protocol"`
	AllowedHosts       []string         `json:"allowed_hosts"`
	Proxy              pluginsdk.Secret `json:"proxy"` // may hold a password
	CAFile             string           `json:"ca_file"`
	Originator         string           `json:"originator"`
	UserAgentSuffix    string           `json:"user_agent_suffix"`
	Residency          string           `json:"residency"`
	AppVersion         string           `json:"app_version"`
	InstallationIDFile string           `json:"installation_id_file"`
	ServerName         string           `json:"server_name"`
	MaxClients         int              `json:"max_clients"`
}

func configKeys() []pluginsdk.ConfigKey {
	type key = pluginsdk.ConfigKey
	return []key{
		{Name: "url", Type: pluginsdk.TypeString, Help: "base URL of the backend; default " + defaultURL},
		{Name: "protocol", Type: pluginsdk.TypeNumber, Help: "generation of the backend's wire: 3 (the default) or 2"},
		{Name: "allowed_hosts", Type: pluginsdk.TypeStrings, Help: "names that url may have with https, beside chatgpt.com, chatgpt-staging.com and localhost"},
		{Name: "proxy", Type: pluginsdk.TypeString, Help: `http://, https:// or socks5:// URL of a proxy, with user:password@ if it wants them, or "direct"; default: HTTPS_PROXY, HTTP_PROXY and NO_PROXY`},
		{Name: "ca_file", Type: pluginsdk.TypeString, Help: "PEM file of certificate authorities that are trusted beside the system's"},
		{Name: "originator", Type: pluginsdk.TypeString, Help: "originator header; default: $" + originatorEnv + ", else " + defaultOriginator},
		{Name: "user_agent_suffix", Type: pluginsdk.TypeString, Help: "added to the User-Agent header, in parentheses"},
		{Name: "residency", Type: pluginsdk.TypeString, Help: `residency requirement that is sent to the backend, such as "us"`},
		{Name: "app_version", Type: pluginsdk.TypeString, Help: "version of the application server as the backend is told it; default: the plugin's"},
		{Name: "installation_id_file", Type: pluginsdk.TypeString, Help: "file with the id of this installation; default $CODEX_HOME/installation_id, else ~/.codex/installation_id, else one that is made and kept"},
		{Name: "server_name", Type: pluginsdk.TypeString, Help: "name of this host as remote devices show it; default: the host name"},
		{Name: "max_clients", Type: pluginsdk.TypeNumber, Help: "remote clients that may be connected at once; default " + strconv.Itoa(defaultMaxClients)},
	}
}

// withDefaults fills in what is not set.
func (c config) withDefaults() config {
	c.URL = cmp.Or(c.URL, defaultURL)
	c.Protocol = cmp.Or(c.Protocol, profile3)
	c.MaxClients = cmp.Or(c.MaxClients, defaultMaxClients)
	c.Originator = cmp.Or(c.Originator, os.Getenv(originatorEnv), defaultOriginator)
	c.AppVersion = cmp.Or(c.AppVersion, ownVersion())
	c.ServerName = strings.TrimSpace(c.ServerName)
	if c.ServerName == "" {
		name, err := os.Hostname()
		if err != nil {
			name = "unknown"
		}
		c.ServerName = strings.TrimSpace(strings.ToValidUTF8(name, "\uFFFD"))
	}
	return c
}

// validate returns all complaints, each an [pluginsdk.ErrInvalidConfig]. It
// does not look at the URL: a transport that starts disabled starts with any.
func (c config) validate() error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: %s", pluginsdk.ErrInvalidConfig, fmt.Sprintf(format, args...)))
	}
	if c.Protocol != profile2 && c.Protocol != profile3 {
		complain("protocol is %d, want 3 or 2", c.Protocol)
	}
	if c.MaxClients < 0 {
		complain("max_clients is %d, want 1 or more", c.MaxClients)
	}
	for _, h := range []struct{ name, value string }{
		{"originator", c.Originator}, {"user_agent_suffix", c.UserAgentSuffix}, {"residency", c.Residency}, {"app_version", c.AppVersion},
	} {
		if !httpguts.ValidHeaderFieldValue(h.value) {
			if h.name == "originator" && h.value == os.Getenv(originatorEnv) {
				h.name = originatorEnv
			}
			complain("%s is %q, want text that an HTTP header can hold", h.name, h.value)
		}
	}
	for _, h := range c.AllowedHosts {
		if h == "" || strings.ContainsAny(h, "/@* \t") || strings.Contains(h, "://") {
			complain("allowed_hosts has %q, want a host name without scheme, path or wildcard", h)
		}
	}
	return errors.Join(errs...)
}

// ownVersion is the version of this executable, as a backend wants it.
func ownVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return noVersion
	}
	return strings.TrimPrefix(info.Main.Version, "v")
}
