package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/transporthost/transporthost/shared/transport"
)

// inItsProcess are defects of a process whose link is as it should be.
func inItsProcess() map[string]func() int {
	serving := func(serve func(r *raw)) func() int {
		return func() int { return (&raw{serve: serve}).main() }
	}
	return map[string]func() int{
		"panics": serving(func(r *raw) {
			r.server.Opened(1, transport.Opened{})
			panic("the moon is full")
		}),
		"forks-and-exits": serving(func(*raw) {
			for range 5 {
				// It keeps the output of the plugin open, as a daemon would.
				c := exec.Command("sleep", "1000")
				c.Stdout, c.Stderr = os.Stdout, os.Stderr
				_ = c.Start()
			}
			os.Exit(4)
		}),
		"stops-itself": serving(func(*raw) { stopItself() }),
		"ignores-signals": func() int {
			signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			(&raw{}).stubbornMain()
			forever()
			return 0
		},
		"floods-stderr": serving(func(*raw) {
			line := []byte(`{"@level":"info","@message":"the moon is full","@timestamp":"2026-01-01T00:00:00.000000Z"}` + "\n")
			write(os.Stderr, bytes.Repeat(line, 100))
		}),
		"floods-stderr-without-lines": serving(func(*raw) {
			write(os.Stderr, bytes.Repeat([]byte("\x1b[31mx"), 10_000))
		}),
		// The descriptor itself: os.Stdout is go-plugin's by now.
		"floods-stdout": func() int {
			stdout := os.NewFile(1, "stdout")
			return (&raw{serve: func(*raw) { write(stdout, bytes.Repeat([]byte("1|1|unix|/nowhere|grpc|\n"), 1000)) }}).main()
		},
		"leaks-memory": serving(func(*raw) {
			var kept [][]byte
			for {
				b := make([]byte, 1<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1 // a page that is really there
				}
				kept = append(kept, b)
				if len(kept)%1024 == 0 {
					fmt.Fprintln(os.Stderr, len(kept)>>10, "GiB of memory")
				}
			}
		}),
	}
}

// write writes b for ever.
func write(f *os.File, b []byte) {
	for {
		if _, err := f.Write(b); err != nil {
			forever()
		}
	}
}
