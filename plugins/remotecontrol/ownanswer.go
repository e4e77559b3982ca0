package remotecontrol

import pluginsdk "github.com/transporthost/transporthost/plugin-sdk"

// An answerKind is what a stream answers by itself, in place of the
// application. Its values are written into checkpoints.
type answerKind uint8

const (
	answerOverloaded answerKind = 1 // a bounded queue had no room for the request
	answerTooLarge   answerKind = 2 // the request is over the host's limit
	answerNotSent    answerKind = 3 // the response is over the limit of the wire
)

// maxAnswerID bounds the ids that are repeated in answers; a request with a
// longer one is answered to null.
const maxAnswerID = 256

// An ownAnswer is an error response of this plugin's own. Kind and id say all
// of it, so that another process can send the same bytes again.
type ownAnswer struct {
	kind answerKind
	id   []byte // as it was spelled; nil: null
}

func newAnswer(kind answerKind, id []byte) ownAnswer {
	if len(id) > maxAnswerID {
		id = nil
	}
	return ownAnswer{kind: kind, id: append([]byte(nil), id...)}
}

// message is the answer as a JSON-RPC message.
func (a ownAnswer) message() []byte {
	switch a.kind {
	case answerTooLarge:
		return pluginsdk.AppendError(nil, a.id, pluginsdk.CodeInvalidRequest, "Invalid Request: the message is larger than the host allows.")
	case answerNotSent:
		return pluginsdk.AppendError(nil, a.id, pluginsdk.CodeInternalError, "The response is larger than remote control can carry.")
	}
	return pluginsdk.AppendError(nil, a.id, pluginsdk.CodeOverloaded, pluginsdk.OverloadedText)
}
