// Command embed is a host inside another program, with an application that is
// a Go function: it greets every peer that connects.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/application"
)

func main() {
	h, err := host.New(host.Config{
		Application: host.Application{Handler: application.HandlerFunc(greet)},
		Transports:  []host.Transport{{Name: "websocket", Listen: []string{"ws://127.0.0.1:4600"}}},
		PluginDirs:  []string{"bin/plugins"},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := h.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

func greet(ctx context.Context, c *application.HandlerConn) error {
	if err := c.Send(ctx, []byte(`{"jsonrpc":"2.0","method":"greeting","params":"hello"}`)); err != nil {
		return err
	}
	for {
		if _, err := c.Receive(ctx); err != nil {
			return err
		}
	}
}
