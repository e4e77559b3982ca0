package transport

import (
	"encoding/json"
	"fmt"
)

// An AuthStrictness says what unusable credentials mean to a remote transport.
type AuthStrictness uint8

const (
	_                AuthStrictness = iota // the zero value is a bug, not a default
	AllowRecoverable                       // wait for better ones
	RequireReady                           // refuse to start
)

func (s AuthStrictness) String() string {
	switch s {
	case AllowRecoverable:
		return "allow-recoverable"
	case RequireReady:
		return "require-ready"
	}
	return fmt.Sprintf("auth-strictness-%d", uint8(s))
}

// An Inherited is an open file that the host passes to a process: a listening
// socket, or an end of a pipe. It is closed by whoever takes it.
type Inherited struct {
	Name string // what it is for: "listen:0", "stdin", "stdout"
	FD   int    // its number in the process
	URL  string // of a listener: the address as it was configured, with the port that was bound
}

// StartParams is what a process gets to begin with.
type StartParams struct {
	Instance        string          // the name of the transport block: "websocket", "phone"
	Incarnation     int             // 1 for the first process of this instance
	Config          json.RawMessage // of this instance, checked against Description.Config; {} if empty
	AuthStrictness  AuthStrictness
	Enabled         bool
	Inherited       []Inherited
	Resume          []Resume
	MaxMessageBytes int // of one message, in both directions
}

// StartResult is what a process answers once its peers can reach it.
type StartResult struct {
	Addresses []string // where peers reach it: "ws://127.0.0.1:4500"; empty if there is no such place
	Adopted   []ConnID // of StartParams.Resume: the connections that this process goes on with
}

// A Status is what a plugin says of itself while it runs; see the states of
// the transport's own documentation. It holds no secret.
type Status struct {
	State   string            `json:"state"`            // "ready", "connected", "waiting-for-auth", …
	Ready   bool              `json:"ready"`            // peers can reach it now
	Cause   string            `json:"cause,omitempty"`  // one line, if it is not ready
	Remedy  string            `json:"remedy,omitempty"` // what a person can do
	Details map[string]string `json:"details,omitempty"`
}

// A CredentialsChange tells a plugin that the host has other credentials now.
type CredentialsChange struct {
	Generation uint64
	Reason     string
}

// Credentials are what a granted plugin gets of the host's: the short-lived
// access token and the account that it belongs to.
type Credentials struct {
	AccessToken Secret
	AccountID   string
	Generation  uint64
	FedRAMP     bool // the account is one of a FedRAMP workspace
}
