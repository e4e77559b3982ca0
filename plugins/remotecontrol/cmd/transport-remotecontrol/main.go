// Command transport-remotecontrol is the plugin that lets peers reach the host
// through a relay.
package main

import (
	"os"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugins/remotecontrol"
)

func main() { os.Exit(pluginsdk.Main(remotecontrol.New())) }
