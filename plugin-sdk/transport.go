// Package pluginsdk is what the author of a transport imports: implement
// [Transport], call [Main], and the SDK does the rest (handshake, link, flow
// control, ending with the host).
package pluginsdk

import (
	"context"

	"github.com/transporthost/transporthost/shared/transport"
)

// The vocabulary of [transport], so that a plugin needs one import.
type (
	ConnID            = transport.ConnID
	Seq               = transport.Seq
	Cursor            = transport.Cursor
	ResumeKey         = transport.ResumeKey
	Peer              = transport.Peer
	Opened            = transport.Opened
	Resume            = transport.Resume
	Rejection         = transport.Rejection
	CloseCode         = transport.CloseCode
	CloseReason       = transport.CloseReason
	Description       = transport.Description
	Capabilities      = transport.Capabilities
	ConfigKey         = transport.ConfigKey
	ConfigType        = transport.ConfigType
	Locality          = transport.Locality
	AuthStrictness    = transport.AuthStrictness
	StartParams       = transport.StartParams
	Inherited         = transport.Inherited
	Status            = transport.Status
	Credentials       = transport.Credentials
	CredentialsChange = transport.CredentialsChange
	Secret            = transport.Secret
)

// The constants of the same vocabulary.
const (
	Local  = transport.Local
	Remote = transport.Remote

	AllowRecoverable = transport.AllowRecoverable
	RequireReady     = transport.RequireReady

	CloseNormal       = transport.CloseNormal
	CloseGoingAway    = transport.CloseGoingAway
	ClosePeerGone     = transport.ClosePeerGone
	CloseProtocol     = transport.CloseProtocol
	CloseInvalidData  = transport.CloseInvalidData
	CloseTooLarge     = transport.CloseTooLarge
	CloseSlow         = transport.CloseSlow
	CloseOverloaded   = transport.CloseOverloaded
	CloseAppEnded     = transport.CloseAppEnded
	ClosePluginLost   = transport.ClosePluginLost
	CloseUnauthorized = transport.CloseUnauthorized
	CloseIdle         = transport.CloseIdle
	CloseInternal     = transport.CloseInternal

	TypeString   = transport.TypeString
	TypeNumber   = transport.TypeNumber
	TypeBool     = transport.TypeBool
	TypeDuration = transport.TypeDuration
	TypeStrings  = transport.TypeStrings
	TypeObject   = transport.TypeObject
)

// The errors of the same vocabulary; compare with errors.Is.
var (
	ErrConnClosed       = transport.ErrConnClosed
	ErrTooLarge         = transport.ErrTooLarge
	ErrLinkClosed       = transport.ErrLinkClosed
	ErrStopping         = transport.ErrStopping
	ErrInvalidConfig    = transport.ErrInvalidConfig
	ErrPermissionDenied = transport.ErrPermissionDenied
	ErrNotGranted       = transport.ErrNotGranted
	ErrNoCredentials    = transport.ErrNoCredentials
	ErrNotFound         = transport.ErrNotFound
)

// A Transport is a way for peers to reach the host. What it can do beyond this
// is told by the optional interfaces below; the SDK declares them to the host
// as capabilities.
type Transport interface {
	// Describe says who this is. It is called before Serve, answers from
	// memory, and answers the same each time. The SDK fills in the
	// capabilities that it can see for itself.
	Describe() Description

	// Serve serves peers until ctx ends, and returns when everything that it
	// started has ended. It calls [Host.Ready] as soon as peers can reach it.
	//
	// An error before Ready refuses the start; wrap [ErrInvalidConfig] or
	// [ErrPermissionDenied] if that is the cause. An error after Ready ends the
	// process, and the host starts another one.
	Serve(ctx context.Context, host *Host) error
}

// A Drainer is a [Transport] that can stop accepting before it is stopped:
// after Drain returns no new connection opens; the open ones go on. It closes
// its own descriptors of the host's listeners and leaves the sockets alone:
// another process accepts from them. Who was accepted before is still greeted;
// Drain waits for that until ctx ends. It may be called again.
//
// A Drainer whose addresses the host binds, and that is no [Resumer], is replaced
// by a process that serves beside it until it has been drained.
type Drainer interface {
	Drain(ctx context.Context) error
}

// An Enabler is a [Transport] that can be switched off and on while it runs.
type Enabler interface {
	SetEnabled(ctx context.Context, enabled bool) error
}

// A StrictnessSetter is a [Transport] that wants to know how strict the host is
// about credentials; the first value is in [StartParams].
type StrictnessSetter interface {
	SetAuthStrictness(ctx context.Context, s AuthStrictness) error
}

// A CredentialsWatcher is a [Transport] that wants to hear that the host has
// other credentials now. It asks for them with [Host.Credentials].
type CredentialsWatcher interface {
	CredentialsChanged(ctx context.Context, change CredentialsChange) error
}

// A Resumer is a [Transport] that adopts what [StartParams].Resume lists, each
// with [Host.Adopt], before it calls [Host.Ready].
type Resumer interface {
	CanResume()
}

// A Sink takes what the host sends on one connection. Its methods are called
// from the link's receive loop, one at a time, and must not block: everybody
// else on this plugin waits meanwhile. (A transport that would rather wait in
// a goroutine of its own uses an [Inbox].)
type Sink interface {
	// Message takes one whole message; p is on loan until Message returns. Once
	// its bytes have left, tell the host with [Conn.Written].
	Message(seq Seq, p []byte)

	// Flush follows the last Message of a batch: the time for one write.
	Flush()

	// Close says that the host ends the connection; no other call follows. The
	// messages before it still go out, then the wire ends in its own way and
	// the transport calls [Conn.Close].
	Close(reason CloseReason)
}

// A PieceSink is a [Sink] that takes a message which travelled in several pieces
// as those, because to join one of 64 MiB would hold up everybody else on this
// plugin.
type PieceSink interface {
	// Pieces is called in place of Message. The pieces belong to the sink.
	Pieces(seq Seq, pieces [][]byte)
}

// A Binder is a [Sink] that gets its connection before any other of its methods
// is called; they may be called before [Host.Open] has returned. Bind must not
// block, and must not use the connection yet.
type Binder interface {
	Bind(c *Conn)
}

// ShortAccount makes of an account's id what people are shown of it.
func ShortAccount(id string) string { return transport.ShortAccount(id) }
