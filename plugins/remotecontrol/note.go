package remotecontrol

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// maxNote is the SDK's limit for a cursor.
const maxNote = 1 << 10

// A note is what travels as the cursor of a message: how far its stream was
// read, and how far the relay was, once the host has accepted it.
type note struct {
	Seq        *uint64 `json:"s,omitempty"` // last inbound seq_id of the stream
	N          uint64  `json:"n,omitempty"` // of the safe place
	Cursor     string  `json:"c,omitempty"`
	Initialize string  `json:"i,omitempty"` // fingerprint of the initialize that opened the stream
	InitSeq    *uint64 `json:"q,omitempty"` // its seq_id
	Legacy     bool    `json:"l,omitempty"` // it named no stream
	Since      bool    `json:"m,omitempty"` // messages followed it
}

// encode returns the note as a cursor. A subscribe cursor that is too long for
// it is left out: after a crash the relay is then read from an earlier one.
func (n note) encode() pluginsdk.Cursor {
	b := marshal(n)
	if len(b) > maxNote {
		n.N, n.Cursor = 0, ""
		b = marshal(n)
	}
	return pluginsdk.Cursor(b)
}

func decodeNote(c pluginsdk.Cursor) (note, error) {
	var n note
	if c == "" {
		return n, nil // the host has accepted nothing
	}
	if err := json.Unmarshal([]byte(c), &n); err != nil {
		return note{}, fmt.Errorf("decoding the cursor of a connection: %w", describeJSON(err))
	}
	if len(n.Initialize) > fingerprintChars {
		return note{}, errors.New("decoding the cursor of a connection: no fingerprint is so long")
	}
	return n, nil
}

// marshal encodes what always encodes, without the escapes that only HTML needs.
func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

const fingerprintChars = 16

// fingerprint tells messages apart. Of a large one only the head counts: this is
// the reader of the link.
func fingerprint(message rope) string {
	sum := sha256.Sum256(message.head())
	return hex.EncodeToString(sum[:fingerprintChars/2])
}

// A streamKey names one stream of one remote participant.
type streamKey struct{ client, stream string }

// resumeKey is the key as the host keeps it.
func (k streamKey) resumeKey() pluginsdk.ResumeKey {
	return pluginsdk.ResumeKey(marshal([]string{k.client, k.stream}))
}

func parseResumeKey(k pluginsdk.ResumeKey) (streamKey, error) {
	var parts []string
	if err := json.Unmarshal([]byte(k), &parts); err != nil || len(parts) != 2 {
		return streamKey{}, fmt.Errorf("the resume key %q is not of this transport", k)
	}
	return streamKey{parts[0], parts[1]}, nil
}
