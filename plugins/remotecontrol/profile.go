// Package remotecontrol is the transport whose peers are behind a relay: it
// enrolls this host with a backend, keeps one WebSocket to it, and makes a
// connection of every remote participant on that.
package remotecontrol

import "errors"

// A profile is a generation of the backend's wire (spec 0.2).
type profile uint8

const (
	_        profile = iota // the zero value is a bug, not a default
	profile2 profile = 2    // account token on the WebSocket, no chunks
	profile3 profile = 3    // server token, refresh, chunks, installation id
)

// chunks reports whether large messages are split over several envelopes.
func (p profile) chunks() bool { return p == profile3 }

// Causes with which a relay link is ended on purpose; [pluginsdk.ErrStopping]
// is another one.
var (
	// errDisabled says that a person switched remote control off.
	errDisabled = errors.New("remote control is disabled")
	// errAccountChanged says that the host has the credentials of another
	// account now, or of none.
	errAccountChanged = errors.New("the account has changed")
)
