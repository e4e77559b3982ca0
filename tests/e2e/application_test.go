//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// childMode is in the environment of a test process that is to be an
// application.
const childMode = "TRANSPORTHOST_E2E_CHILD"

// greeting is what an application in the mode "greets" says behind its answer to
// initialize.
const greeting = `{"jsonrpc":"2.0","method":"configWarning","params":{"summary":"hello"}}`

// self is the command line of this test as an application.
func self(t *testing.T, mode string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"env", childMode + "=" + mode, exe}
}

// actAsApplication is an application with, at most, one defect.
func actAsApplication(mode string) int {
	switch mode {
	case "exits at once":
		return 3
	case "prints rubbish":
		for range 5 {
			fmt.Println("Server listening on port 3000 {")
		}
	case "never reads":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGUSR1)
		<-c
	}
	r := transport.NewFrameReader(os.Stdin, transport.NDJSON, 128<<20)
	w := bufio.NewWriterSize(os.Stdout, 1<<20)
	for {
		p, err := r.Next()
		if err != nil {
			return 0
		}
		m, err := transport.Peek(p)
		if err != nil || m.Kind != transport.Request {
			continue
		}
		params := transport.Field(p, "params")
		if params == nil {
			params = []byte("null")
		}
		switch string(m.Method) {
		case "die":
			return 7
		case "flood": // and nobody may wait for those who do not read
			go func() {
				for i := 0; ; i++ {
					fmt.Fprintf(os.Stdout, `{"jsonrpc":"2.0","method":"noise","params":[%d,"%01000d"]}`+"\n", i, i)
					time.Sleep(time.Microsecond)
				}
			}()
		}
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`+"\n", m.ID, params)
		if mode == "greets" && string(m.Method) == "initialize" {
			fmt.Fprintln(w, greeting)
		}
		if w.Flush() != nil {
			return 0
		}
	}
}
