package remotecontrol

import (
	"errors"

	"github.com/hashicorp/go-hclog"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// newRelayClients makes the virtual clients of a transport.
func newRelayClients(*pluginsdk.Host, profile, string, hclog.Logger) (relayClients, error) {
	return nil, errors.New("this build carries no virtual clients")
}
