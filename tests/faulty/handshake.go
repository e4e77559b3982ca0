package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// inTheHandshake are defects that show before the link is there.
func inTheHandshake() map[string]func() int {
	say := func(format string, args ...any) func() int {
		return func() int {
			fmt.Printf(format, args...)
			forever()
			return 0
		}
	}
	return map[string]func() int{
		"prints-rubbish": say("Server listening on port 3000\n"),
		// A title for the terminal of whoever reads it, and a line of their status.
		"prints-commands": say("\x1b]0;mine\x07\x1b[2J\rwebsocket  ready\n"),
		"prints-no-end": func() int {
			b := make([]byte, 64<<10)
			for i := range b {
				b[i] = 'x'
			}
			for {
				if _, err := os.Stdout.Write(b); err != nil {
					return 1
				}
			}
		},
		"speaks-another-version":  say("1|99|unix|/nowhere|grpc|\n"),
		"speaks-another-protocol": say("1|1|unix|/nowhere|netrpc|\n"),
		"is-nowhere":              say("1|1|unix|/nowhere/at-all|grpc|\n"),
		"is-elsewhere":            say("1|1|tcp|192.0.2.1:443|grpc|\n"),
		// Its handshake is a good one, and nobody is behind it.
		"is-deaf": func() int {
			path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "deaf")
			if _, err := net.Listen("unix", path); err != nil {
				return 1
			}
			return say("1|1|unix|%s|grpc|\n", path)()
		},
		"exits": func() int { return 3 },
		"exits-with-words": func() int {
			fmt.Fprintln(os.Stderr, "cannot load libmoon.so.3: no such file")
			return 127
		},
		"exits-well": func() int { return 0 },
		"hangs-in-the-handshake": func() int {
			forever()
			return 0
		},
		"panics-in-the-handshake": func() int { panic("the moon is full") },
	}
}
