package host_test

import (
	"context"
	"log"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/application"
)

// A host of ten lines: an MCP server for everybody who connects.
func ExampleNew() {
	h, err := host.New(host.Config{
		Application: host.Application{Command: application.Command{Args: []string{"mcp-server"}}},
		Transports:  []host.Transport{{Name: "websocket", Listen: []string{"ws://127.0.0.1:4500"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := h.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
