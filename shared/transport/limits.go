package transport

import "time"

// Limits of the link, the same in both processes. A sender never exceeds them;
// a receiver ends the link of a process that does.
const (
	// WindowBytes is what may be on its way on one connection in one direction:
	// four messages of 64 KiB, so that a large one does not stop the flow, and
	// little enough that 10,000 stalled peers fit in memory.
	WindowBytes = 256 << 10
	// WindowMessages bounds the same by number, for small messages.
	WindowMessages = 128
	// PieceBytes is the largest part of a payload in one frame. Larger payloads
	// are cut, so that nobody queues behind them; 64 KiB and the envelope of a
	// JSON-RPC message around it still travel whole.
	PieceBytes = 68 << 10
	// LargePieceBytes is how payloads of more than PieceBytes are cut, and
	// LargeWindowBytes what may be on its way when a piece of one is sent: others
	// on the link are never behind more than that, and the receiver, which
	// returns credit by a quarter of the window, keeps the sender going.
	LargePieceBytes  = 32 << 10
	LargeWindowBytes = WindowBytes/creditDue + LargePieceBytes
	// DefaultMaxMessageBytes bounds one message, as the reference does (spec
	// 8.3: 64 MiB).
	DefaultMaxMessageBytes = 64 << 20
	// MaxCheckpointBytes bounds one checkpoint.
	MaxCheckpointBytes = 4 << 10
	// MaxCursorBytes bounds one cursor.
	MaxCursorBytes = 1 << 10
	// MaxStateBytes bounds one stored value of a plugin.
	MaxStateBytes = 64 << 10
)

// Deadlines of the calls from the host to a plugin.
const (
	DescribeTimeout = 5 * time.Second  // answers from memory; the rest is process start
	StartTimeout    = 10 * time.Second // binds, opens, refuses
	NotifyTimeout   = 2 * time.Second  // strictness, credentials, enable: a note taken
	StopTimeout     = 1 * time.Second  // closes what Drain left
)
