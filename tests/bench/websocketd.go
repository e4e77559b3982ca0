package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/transporthost/transporthost/tests/bench/servers"
)

// websocketdStyle is a baseline that is somebody else's program, if it is
// installed: a process for each connection, without plugins.
const websocketdStyle servers.Style = "websocketd"

// installed reports whether a baseline can be run here.
func installed(style servers.Style) bool {
	if style != websocketdStyle {
		return true
	}
	_, err := exec.LookPath(string(websocketdStyle))
	return err == nil
}

// serveWebsocketd runs websocketd with the child that the host has in the same
// row, until ctx ends.
func serveWebsocketd(ctx context.Context, stdout io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	// It takes no port 0: a free one is looked for, and let go of.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	address := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		return fmt.Errorf("letting go of a port: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, string(websocketdStyle),
		"--loglevel=fatal", "--address=127.0.0.1", "--port="+strconv.Itoa(address.Port), self, "child")
	ended := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting websocketd: %w", err)
	}
	go func() { ended <- cmd.Wait() }()
	for {
		c, err := net.Dial("tcp", address.String())
		if err == nil {
			_ = c.Close()
			break
		}
		select {
		case err := <-ended:
			return fmt.Errorf("websocketd has ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	fmt.Fprintf(stdout, "listening on ws://%s\nready\n", address)
	err = <-ended
	if ctx.Err() != nil {
		return nil // we have ended it, and its children have read the end of their input
	}
	return errors.Join(errors.New("websocketd has ended"), err)
}
