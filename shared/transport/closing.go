package transport

import "fmt"

// A CloseCode is the class of the reason why a connection ended.
type CloseCode uint8

const (
	_                 CloseCode = iota // the zero value is a bug, not a default
	CloseNormal                        // the peer, or the application, was done
	CloseGoingAway                     // this side is shutting down or being replaced
	ClosePeerGone                      // the wire broke without a goodbye
	CloseProtocol                      // the peer broke the rules of the wire
	CloseInvalidData                   // text that is not UTF-8
	CloseTooLarge                      // a message over the limit
	CloseSlow                          // the peer did not read what was sent to it
	CloseOverloaded                    // a limit of this side was reached
	CloseAppEnded                      // the application of this connection ended
	ClosePluginLost                    // the process that carried the connection died
	CloseUnauthorized                  // authentication failed or ran out
	CloseIdle                          // nothing was heard for too long
	CloseInternal                      // a defect on this side
	closeCodes                         // one more than the last
)

var closeNames = [closeCodes]string{
	"", "normal", "going-away", "peer-gone", "protocol-error", "invalid-data",
	"too-large", "slow", "overloaded", "application-ended", "plugin-lost",
	"unauthorized", "idle", "internal-error",
}

func (c CloseCode) String() string {
	if c == 0 || c >= closeCodes {
		return fmt.Sprintf("close-code-%d", uint8(c))
	}
	return closeNames[c]
}

// Valid reports whether c is one of the codes above.
func (c CloseCode) Valid() bool { return c > 0 && c < closeCodes }

// A CloseReason says why a connection ended. Text is for people; it holds no
// secret and no payload.
type CloseReason struct {
	Code CloseCode
	Text string
}

func (r CloseReason) String() string {
	if r.Text == "" {
		return r.Code.String()
	}
	return r.Code.String() + ": " + r.Text
}

// Because makes a [CloseReason] with a formatted text.
func Because(code CloseCode, format string, args ...any) CloseReason {
	return CloseReason{Code: code, Text: fmt.Sprintf(format, args...)}
}
