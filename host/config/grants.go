package config

import "slices"

// A Grant is something of the host's that a transport may ask for.
type Grant string

// The grants. Whatever a transport is not granted is refused to it.
const (
	GrantCredentials Grant = "credentials" // the account's short-lived token
	GrantState       Grant = "state"       // values that outlive the host
	GrantClientName  Grant = "client-name" // what the program at the terminal calls itself
)

// Grants lists all of them.
func Grants() []Grant { return []Grant{GrantCredentials, GrantState, GrantClientName} }

// RemotePlugin is the plugin of remote control. It is granted everything unless
// the configuration says otherwise: it can do nothing without.
const RemotePlugin = "remotecontrol"

// DefaultGrants returns what a transport with this plugin is granted if the
// configuration does not say.
func DefaultGrants(plugin string) []Grant {
	if plugin == RemotePlugin {
		return Grants()
	}
	return nil
}

// grants reads the key "grant". The result is not nil: an empty list takes the
// defaults away.
func (p *parser) grants(k key) []Grant {
	granted := []Grant{}
	elements, _ := k.value.(list)
	for _, e := range elements {
		text, _ := e.value.(string)
		g := Grant(text)
		switch {
		case !slices.Contains(Grants(), g):
			p.complain(e.at, `allowed are "credentials", "state" and "client-name"`, "grant is %q", text)
		case slices.Contains(granted, g):
			p.complain(e.at, "", "grant has %q twice", text)
		default:
			granted = append(granted, g)
		}
	}
	return granted
}
