// Command transport-websocket is the plugin that lets peers reach the host
// over WebSocket.
package main

import (
	"os"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugins/websocket"
)

func main() { os.Exit(pluginsdk.Main(websocket.New())) }
