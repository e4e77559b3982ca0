package remotecontrol

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	// maxMembers and maxAround bound what stands around a large message in its
	// envelope.
	maxMembers = 32
	maxAround  = 64 << 10
)

// A largeFrame is a frame of more than [pluginsdk.LargeBytes], which a backend
// sends that does not cut messages. While one comes nothing else can, so it is
// looked into as it comes, and nothing is left to do at its end that would make
// those behind it wait.
type largeFrame struct {
	bytes rope
	check pluginsdk.Checker
	pace  pluginsdk.Pace
	wrong bool // it is no JSON
}

// add takes a piece of the frame, which it keeps.
func (f *largeFrame) add(piece []byte) {
	f.bytes.append(piece)
	for len(piece) > 0 && !f.wrong {
		step := piece[:min(len(piece), pluginsdk.StepBytes)]
		piece = piece[len(step):]
		f.wrong = !f.check.Write(step)
		f.pace.Step()
	}
}

// readLarge reads the rest of a large frame. The error is that of the socket.
func (l *link) readLarge(begin []byte, r io.Reader) error {
	f := &largeFrame{check: pluginsdk.Checker{Members: make([]pluginsdk.Member, 0, maxMembers)}}
	f.add(bytes.Clone(begin))
	for {
		piece := make([]byte, pluginsdk.StepBytes)
		n, err := io.ReadFull(r, piece)
		if f.bytes.size+n > maxFrame {
			l.clients.complain(&l.clients.tally.malformed, "dropping a remote-control websocket message over the limit", "limit", maxFrame)
			return nil // the next NextReader skips the rest
		}
		f.add(piece[:n])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // of the frame: the socket's is another
			l.clients.receiveLarge(f)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// receiveLarge is receive for a large frame.
func (c *clients) receiveLarge(f *largeFrame) {
	e, err := f.envelope(c.profile)
	if err != nil {
		c.complain(&c.tally.malformed, "failed to deserialize remote-control client event", "err", err)
		return
	}
	c.dropStale()
	c.message(&e, nil)
}

// envelope decodes what stands around the message.
func (f *largeFrame) envelope(p profile) (clientEnvelope, error) {
	var e clientEnvelope
	if f.wrong || !f.check.Valid() {
		return e, errors.New("not JSON, or not UTF-8")
	}
	var at *pluginsdk.Member
	for i := range f.check.Members {
		m := &f.check.Members[i]
		key := f.bytes.slice(m.Key[0], m.Key[1]).join()
		var name string
		if len(key) > maxAround || json.Unmarshal(key, &name) != nil || !strings.EqualFold(name, "message") {
			continue
		}
		if at != nil {
			return e, errors.New("more than one message")
		}
		at = m
	}
	if at == nil {
		return e, errNoMessage
	}
	message := f.bytes.slice(at.Value[0], at.Value[1])
	if f.bytes.size-message.size > maxAround {
		return e, errors.New("too much around the message")
	}
	around := f.bytes.slice(0, at.Value[0]).appendTo(nil)
	around = append(around, "null"...)
	around = f.bytes.slice(at.Value[1], f.bytes.size).appendTo(around)
	if err := json.Unmarshal(around, &e); err != nil {
		return e, describeJSON(err)
	}
	if e.Type != typeMessage {
		return e, errors.New("more than an event of this type may have")
	}
	if e.Message, e.large = nil, message; message.size <= pluginsdk.LargeBytes {
		e.Message, e.large = message.join(), rope{}
	}
	return e, e.complete(p)
}
