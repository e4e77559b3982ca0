package host_test

import (
	"context"
	"log"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/application"
)

// An MCP server, one process per peer, reachable over WebSocket.
func Example() {
	h, err := host.New(host.Config{
		Application: host.Application{Command: application.Command{Args: []string{"bin/mcp-server"}}},
		Transports:  []host.Transport{{Name: "websocket", Listen: []string{"ws://127.0.0.1:4500"}}},
		PluginDirs:  []string{"bin/plugins"},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := h.Run(context.Background()); err != nil { // until its context ends
		log.Fatal(err)
	}
}
