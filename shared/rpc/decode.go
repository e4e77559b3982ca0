package rpc

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/transporthost/transporthost/shared/transport"
)

var errMalformed = errors.New("malformed batch")

// fields walks the fields of one protobuf message. Varints come in v, bytes in
// data, which points into b; other wire types are skipped.
func fields(b []byte, visit func(field protowire.Number, v uint64, data []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
			if err := visit(num, v, nil); err != nil {
				return err
			}
		case protowire.BytesType:
			data, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
			if err := visit(num, 0, data); err != nil {
				return err
			}
		default:
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
		}
	}
	return nil
}

// A frame is one event or command as it stands in a batch. Its slices point
// into the batch.
type frame struct {
	conn    transport.ConnID
	kind    protowire.Number // 0: none that is known
	payload []byte           // Received and Send: the piece; other kinds: field 1, if it is bytes
	second  []byte           // field 2, if it is bytes: a cursor, a text, a resume key
	n1, n2  uint64           // fields 1 and 2, if they are numbers
	more    bool             // field 3
}

// maxKind is the highest field number of a kind, of both directions.
const maxKind = eventRejected

// next decodes the first frame of a batch and returns the rest. It is the hot
// loop of a receive loop, hence without closures and tables.
func (f *frame) next(b []byte) (rest []byte, err error) {
	*f = frame{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, errMalformed
		}
		if num != batchFrames || typ != protowire.BytesType {
			m := protowire.ConsumeFieldValue(num, typ, b[n:])
			if m < 0 {
				return nil, errMalformed
			}
			b = b[n+m:]
			continue
		}
		body, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return nil, errMalformed
		}
		return b[n+m:], f.decode(body)
	}
	return nil, nil
}

func (f *frame) decode(b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		switch {
		case num == frameConn && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errMalformed
			}
			f.conn = transport.ConnID(v)
			b = b[n:]
		case num > frameConn && num <= maxKind && typ == protowire.BytesType:
			body, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
			*f = frame{conn: f.conn, kind: num} // of a oneof, the last counts
			if err := f.decodeKind(body); err != nil {
				return err
			}
		default: // of a newer sender
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
		}
	}
	return nil
}

func (f *frame) decodeKind(b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		switch typ {
		case protowire.BytesType:
			data, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
			switch num {
			case 1:
				f.payload = data
			case 2:
				f.second = data
			}
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
			switch num {
			case 1:
				f.n1 = v
			case 2:
				f.n2 = v
			case 3:
				f.more = v != 0
			}
		default:
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
		}
	}
	return nil
}

// credit is f as a Credit frame. Numbers that no window can hold become the
// largest int, which [transport.SendWindow.Return] refuses.
func (f *frame) credit() transport.Credit {
	const most = 1<<31 - 1
	return transport.Credit{Bytes: int(min(f.n1, most)), Messages: int(min(f.n2, most))}
}

// reason is f as a Closed or Close frame. A code of a newer sender is kept out
// of the enum.
func (f *frame) reason() transport.CloseReason {
	code := transport.CloseInternal
	if f.n1 < 256 && transport.CloseCode(f.n1).Valid() {
		code = transport.CloseCode(f.n1)
	}
	return transport.CloseReason{Code: code, Text: string(f.second)}
}

// opened is f as an Opened frame.
func (f *frame) opened() (transport.Opened, error) {
	o := transport.Opened{ResumeKey: transport.ResumeKey(f.second), Lossless: f.more}
	err := fields(f.payload, func(field protowire.Number, _ uint64, data []byte) error {
		switch field {
		case 1:
			o.Peer.RemoteAddr = string(data)
		case 2:
			o.Peer.LocalAddr = string(data)
		case 3:
			o.Peer.Identity = string(data)
		case 4:
			o.Peer.UserAgent = string(data)
		case 5:
			o.Peer.ClientName = string(data)
		}
		return nil
	})
	if err != nil {
		return o, fmt.Errorf("decoding the peer of connection %d: %w", f.conn, err)
	}
	return o, nil
}
