package rpc

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/transporthost/transporthost/shared/transport"
)

// The frames of the data path are written by hand, byte for byte what
// protobuf-go would write (a test compares): marshalling through generated
// structs costs a fifth of the throughput of small messages.

// Field numbers of the messages in transport.proto.
const (
	batchFrames = 1 // EventBatch.events, CommandBatch.commands
	frameConn   = 1 // Event.conn, Command.conn

	eventOpened     = 2
	eventReceived   = 3
	eventAcked      = 4
	eventCheckpoint = 5
	eventClosed     = 6
	eventCredit     = 7
	eventFinished   = 8
	eventRejected   = 9

	commandSend         = 2
	commandClose        = 3
	commandCredit       = 4
	commandAccepted     = 5
	commandCheckpointed = 6
)

// frameOverhead is more than the bytes of a frame beside its payload and
// cursor: five tags, five lengths or numbers of at most ten bytes.
const frameOverhead = 64

func sizeVarintField(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func sizeBytesField(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func appendVarintField(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = append(b, byte(field<<3)|byte(protowire.VarintType))
	return protowire.AppendVarint(b, v)
}

func appendBytesField[T ~[]byte | ~string](b []byte, field protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = append(b, byte(field<<3)|byte(protowire.BytesType))
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendHead appends everything of a frame up to the kind's own fields, which
// are size bytes.
func appendHead(b []byte, conn transport.ConnID, kind protowire.Number, size int) []byte {
	frame := sizeVarintField(uint64(conn)) + 1 + protowire.SizeBytes(size)
	b = append(b, batchFrames<<3|byte(protowire.BytesType))
	b = protowire.AppendVarint(b, uint64(frame))
	b = appendVarintField(b, frameConn, uint64(conn))
	b = append(b, byte(kind<<3)|byte(protowire.BytesType))
	return protowire.AppendVarint(b, uint64(size))
}

func boolVarint(v bool) uint64 {
	if v {
		return 1
	}
	return 0
}

func appendReceived(b []byte, conn transport.ConnID, payload []byte, cursor transport.Cursor, more bool) []byte {
	size := sizeBytesField(len(payload)) + sizeBytesField(len(cursor)) + sizeVarintField(boolVarint(more))
	b = appendHead(b, conn, eventReceived, size)
	b = appendBytesField(b, 1, payload)
	b = appendBytesField(b, 2, cursor)
	return appendVarintField(b, 3, boolVarint(more))
}

func appendRejected(b []byte, conn transport.ConnID, r transport.Rejection) []byte {
	size := sizeBytesField(len(r.Cursor)) + sizeBytesField(len(r.Text)) + sizeVarintField(boolVarint(r.Unparsable))
	b = appendHead(b, conn, eventRejected, size)
	b = appendBytesField(b, 1, r.Cursor)
	b = appendBytesField(b, 2, r.Text)
	return appendVarintField(b, 3, boolVarint(r.Unparsable))
}

func appendSend(b []byte, conn transport.ConnID, seq transport.Seq, payload []byte, more bool) []byte {
	size := sizeBytesField(len(payload)) + sizeVarintField(uint64(seq)) + sizeVarintField(boolVarint(more))
	b = appendHead(b, conn, commandSend, size)
	b = appendBytesField(b, 1, payload)
	b = appendVarintField(b, 2, uint64(seq))
	return appendVarintField(b, 3, boolVarint(more))
}

func appendCredit(b []byte, conn transport.ConnID, kind protowire.Number, c transport.Credit) []byte {
	size := sizeVarintField(uint64(c.Bytes)) + sizeVarintField(uint64(c.Messages))
	b = appendHead(b, conn, kind, size)
	b = appendVarintField(b, 1, uint64(c.Bytes))
	return appendVarintField(b, 2, uint64(c.Messages))
}

// appendNumber appends a frame whose kind has one number (Acked).
func appendNumber(b []byte, conn transport.ConnID, kind protowire.Number, v uint64) []byte {
	b = appendHead(b, conn, kind, sizeVarintField(v))
	return appendVarintField(b, 1, v)
}

// appendData appends a frame whose kind has one bytes field (Checkpoint,
// Accepted) or, if data is empty, none (Finished, Checkpointed).
func appendData[T ~[]byte | ~string](b []byte, conn transport.ConnID, kind protowire.Number, data T) []byte {
	b = appendHead(b, conn, kind, sizeBytesField(len(data)))
	return appendBytesField(b, 1, data)
}

// appendReason appends a frame whose kind is a close reason (Closed, Close).
func appendReason(b []byte, conn transport.ConnID, kind protowire.Number, r transport.CloseReason) []byte {
	b = appendHead(b, conn, kind, sizeVarintField(uint64(r.Code))+sizeBytesField(len(r.Text)))
	b = appendVarintField(b, 1, uint64(r.Code))
	return appendBytesField(b, 2, r.Text)
}

func appendOpened(b []byte, conn transport.ConnID, o transport.Opened) []byte {
	p := o.Peer
	peer := sizeBytesField(len(p.RemoteAddr)) + sizeBytesField(len(p.LocalAddr)) + sizeBytesField(len(p.Identity)) +
		sizeBytesField(len(p.UserAgent)) + sizeBytesField(len(p.ClientName))
	size := 1 + protowire.SizeBytes(peer) + sizeBytesField(len(o.ResumeKey)) + sizeVarintField(boolVarint(o.Lossless))
	b = appendHead(b, conn, eventOpened, size)
	b = append(b, 1<<3|byte(protowire.BytesType))
	b = protowire.AppendVarint(b, uint64(peer))
	b = appendBytesField(b, 1, p.RemoteAddr)
	b = appendBytesField(b, 2, p.LocalAddr)
	b = appendBytesField(b, 3, p.Identity)
	b = appendBytesField(b, 4, p.UserAgent)
	b = appendBytesField(b, 5, p.ClientName)
	b = appendBytesField(b, 2, o.ResumeKey)
	return appendVarintField(b, 3, boolVarint(o.Lossless))
}
