package transport

import "fmt"

// A Locality says where a transport's peers are.
type Locality uint8

const (
	_      Locality = iota // the zero value is a bug, not a default
	Local                  // peers reach this machine: stdio, a listener
	Remote                 // peers are behind a relay
)

func (l Locality) String() string {
	switch l {
	case Local:
		return "local"
	case Remote:
		return "remote"
	}
	return fmt.Sprintf("locality-%d", uint8(l))
}

// Capabilities are what a plugin declares that it can do. A missing one means
// no; the host calls nothing that is not declared.
type Capabilities struct {
	Drain              bool // can stop accepting before it is stopped
	SetEnabled         bool // can be switched off and on while it runs
	AuthStrictness     bool // wants to know the auth strictness
	CredentialsChanged bool // wants to hear of credential reloads
	Resume             bool // can adopt connections of its predecessor
}

// Names lists the declared capabilities in a fixed order.
func (c Capabilities) Names() []string {
	var names []string
	for _, e := range []struct {
		on   bool
		name string
	}{
		{c.Drain, "drain"}, {c.SetEnabled, "set-enabled"}, {c.AuthStrictness, "auth-strictness"},
		{c.CredentialsChanged, "credentials-changed"}, {c.Resume, "resume"},
	} {
		if e.on {
			names = append(names, e.name)
		}
	}
	return names
}

// A ConfigType is the type of a configuration key of a plugin.
type ConfigType string

const (
	TypeString   ConfigType = "string"
	TypeNumber   ConfigType = "number" // an integer
	TypeBool     ConfigType = "bool"
	TypeDuration ConfigType = "duration" // a string such as "30s"
	TypeStrings  ConfigType = "list of strings"
	TypeObject   ConfigType = "object"
)

// A ConfigKey describes one key of a plugin's configuration, so that the host
// can point at a mistake in the file before it starts the plugin.
type ConfigKey struct {
	Name     string
	Type     ConfigType
	Required bool
	Help     string      // one line
	Allowed  []string    // for strings: the only values allowed; nil for any
	Keys     []ConfigKey // for objects
}

// A Description is a plugin's answer to who it is. It does not change while
// the process lives.
type Description struct {
	Name         string // of the transport: "websocket"
	Version      string // of the plugin's executable
	Locality     Locality
	Capabilities Capabilities
	Config       []ConfigKey
}
