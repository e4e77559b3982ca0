package remotecontrol

import (
	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A verdict is whether a message of the host may go on the wire.
type verdict uint8

const (
	notChecked     verdict = iota
	messageValid           // it may
	messageInvalid         // it would break the envelope around it
)

// A hostMessage is a message of the host that has no number on the wire yet.
type hostMessage struct {
	seq     pluginsdk.Seq
	payload rope // owned
	verdict verdict
}

// check looks whether the message is JSON. The relay would drop the link of
// everybody over one envelope that is not, and get it again after each
// reconnect.
func (m *hostMessage) check() {
	if m.verdict != notChecked {
		return
	}
	m.verdict = messageInvalid
	if m.payload.valid() {
		m.verdict = messageValid
	}
}

// entry is the checked message as number seq. One that is too large for the
// wire uses up its number, as in the reference (spec 6.3); a response is
// replaced by an error that says so, because somebody waits for it.
func (m *hostMessage) entry(seq uint64, tail string, p profile) entry {
	if m.verdict == messageInvalid {
		return entry{kind: entrySkipped, seq: seq - 1, host: m.seq}
	}
	if s, ok := splitMessage(m.payload.size, tail, seq, p); ok {
		return entry{kind: entryMessage, seq: seq, host: m.seq, payload: m.payload, split: s}
	}
	peeked, err := pluginsdk.Peek(m.payload.head())
	if err == nil && (peeked.Kind == pluginsdk.Response || peeked.Kind == pluginsdk.ErrorResponse) {
		return entry{kind: entryAnswer, seq: seq, host: m.seq, answer: newAnswer(answerNotSent, peeked.ID)}
	}
	return entry{kind: entryDropped, seq: seq, host: m.seq}
}
