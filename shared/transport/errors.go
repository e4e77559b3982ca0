package transport

import "errors"

// Errors that keep their identity between processes. Compare with errors.Is.
var (
	// ErrConnClosed is returned when a connection has ended, or never was.
	ErrConnClosed = errors.New("connection closed")
	// ErrTooLarge is returned for a message over the limit of its connection.
	ErrTooLarge = errors.New("message too large")
	// ErrOverloaded is returned when a bounded queue had no room.
	ErrOverloaded = errors.New("overloaded")
	// ErrLinkClosed is returned when the other process of the link is gone.
	ErrLinkClosed = errors.New("link closed")
	// ErrStopping is returned for work that comes while a stop is under way.
	ErrStopping = errors.New("stopping")
)

// Errors of a plugin's answer to the host.
var (
	// ErrInvalidConfig is returned by Start for a configuration that the plugin
	// cannot use; its text names the key and says what is allowed.
	ErrInvalidConfig = errors.New("invalid configuration")
	// ErrPermissionDenied is returned by Start when the credentials are not
	// usable and the auth strictness is [RequireReady].
	ErrPermissionDenied = errors.New("permission denied")
	// ErrNotSupported is returned for a call that the plugin did not declare.
	ErrNotSupported = errors.New("not supported")
	// ErrAlreadyStarted is returned by a second Start.
	ErrAlreadyStarted = errors.New("already started")
)

// Errors of the host's answer to a plugin.
var (
	// ErrNotGranted is returned for a host call that the config does not grant.
	ErrNotGranted = errors.New("not granted")
	// ErrNoCredentials is returned when there are no usable credentials; its
	// text is the cause.
	ErrNoCredentials = errors.New("no usable credentials")
	// ErrNotFound is returned when there is no state under a key.
	ErrNotFound = errors.New("not found")
)
