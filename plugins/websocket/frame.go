package websocket

import (
	"encoding/binary"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// maxFrameHeader is the longest header of an unmasked frame.
const maxFrameHeader = 10

// appendFrame appends one unmasked frame (RFC 6455, section 5.2).
func appendFrame(b []byte, opcode int, p []byte) []byte {
	const final = 0x80
	b = append(b, final|byte(opcode))
	switch n := len(p); {
	case n < 126:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = append(b, 126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, p...)
}

// A tally counts messages of the host, and the bytes of their payloads.
type tally struct{ messages, bytes int }

func (t *tally) add(more tally) {
	t.messages += more.messages
	t.bytes += more.bytes
}

// A progress tells what of the host's messages is out while frames leave in
// parts that begin and end anywhere.
type progress struct {
	frames  []byte
	left    tally // of the host in them, and not out
	out     int   // bytes of frames
	payload int   // where that of the current frame begins
	end     int   // of the current frame
	text    bool  // it is a message
}

// advance accounts for n more bytes that are out, and returns what that means
// for the messages: bytes as they leave, a message with its last byte. A
// message of this plugin's own follows all of the host's, if there is one, and
// is not counted.
func (p *progress) advance(n int) tally {
	var t tally
	for to := p.out + n; p.out < to; {
		if p.out == p.end {
			p.begin()
		}
		stop := min(to, p.end)
		if p.text {
			t.bytes += max(0, stop-max(p.out, p.payload))
			if stop == p.end {
				t.messages++
			}
		}
		p.out = stop
	}
	t.messages, t.bytes = min(t.messages, p.left.messages), min(t.bytes, p.left.bytes)
	p.left.add(tally{-t.messages, -t.bytes})
	return t
}

// begin reads the header of the frame that begins where the last one ended.
func (p *progress) begin() {
	h := p.frames[p.end:]
	p.text = h[0]&0x0f == websocket.TextMessage
	switch n := h[1]; n {
	case 126:
		p.payload = p.end + 4
		p.end = p.payload + int(binary.BigEndian.Uint16(h[2:]))
	case 127:
		p.payload = p.end + maxFrameHeader
		p.end = p.payload + int(binary.BigEndian.Uint64(h[2:]))
	default:
		p.payload = p.end + 2
		p.end = p.payload + int(n)
	}
}

// closeFrame is the payload of a close frame. Text is cut to fit.
func closeFrame(r pluginsdk.CloseReason) []byte {
	const most = 123 // 125 less the code
	return websocket.FormatCloseMessage(closeCode(r.Code), clip(r.Text, most))
}

// closeCode maps reasons to the codes of RFC 6455 and its registry.
func closeCode(c pluginsdk.CloseCode) int {
	switch c {
	case pluginsdk.CloseNormal:
		return websocket.CloseNormalClosure
	case pluginsdk.CloseGoingAway, pluginsdk.ClosePluginLost:
		return websocket.CloseGoingAway
	case pluginsdk.CloseProtocol:
		return websocket.CloseProtocolError
	case pluginsdk.CloseInvalidData:
		return websocket.CloseInvalidFramePayloadData
	case pluginsdk.CloseTooLarge:
		return websocket.CloseMessageTooBig
	case pluginsdk.CloseSlow, pluginsdk.CloseOverloaded:
		return websocket.CloseTryAgainLater
	case pluginsdk.CloseUnauthorized:
		return websocket.ClosePolicyViolation
	case pluginsdk.CloseIdle:
		return websocket.CloseGoingAway
	}
	return websocket.CloseInternalServerErr
}
