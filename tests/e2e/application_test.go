//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
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
		stay()
	}
	framing := transport.NDJSON
	if mode == "content-length" {
		framing = transport.ContentLength
	}
	deaf := false // to initialize
	if file, ok := strings.CutPrefix(mode, "initializes at odd starts:"); ok {
		deaf = starts(file)%2 == 0
	}
	r := transport.NewFrameReader(os.Stdin, framing, 128<<20)
	w := bufio.NewWriterSize(os.Stdout, 1<<20)
	say := func(format string, args ...any) bool {
		_, _ = w.Write(transport.AppendFrame(nil, fmt.Appendf(nil, format, args...), framing))
		return w.Flush() == nil
	}
	var held []string
	cancelled := 0
	for {
		p, err := r.Next()
		if err != nil {
			return 0
		}
		m, err := transport.Peek(p)
		if err != nil {
			continue
		}
		if string(m.Method) == "notifications/cancelled" {
			cancelled++
		}
		if m.Kind != transport.Request {
			continue
		}
		params := transport.Field(p, "params")
		if params == nil {
			params = []byte("null")
		}
		switch string(m.Method) {
		case "initialize":
			if deaf {
				continue
			}
		case "die":
			return 7
		case "pid":
			params = fmt.Append(nil, os.Getpid())
		case "hold":
			held = append(held, string(m.ID))
			continue
		case "release":
			for _, id := range held {
				say(`{"jsonrpc":"2.0","id":%s,"result":"late"}`, id)
			}
		case "run": // a command, whose words are the answer
			var args []string
			if err := json.Unmarshal(params, &args); err != nil || len(args) == 0 {
				return 8
			}
			out, _ := exec.Command(args[0], args[1:]...).CombinedOutput()
			params, _ = json.Marshal(string(out))
		case "cancelled":
			params = fmt.Append(nil, cancelled)
		case "close stdout":
			_ = os.Stdout.Close()
			stay()
		case "close stdin":
			_ = os.Stdin.Close()
			say(`{"jsonrpc":"2.0","id":%s,"result":null}`, m.ID)
			stay()
		case "burst":
			for i := range 2000 {
				say(`{"jsonrpc":"2.0","method":"noise","params":[%d,"%05000d"]}`, i, i)
			}
		case "flood": // and nobody may wait for those who do not read
			go func() {
				for i := 0; ; i++ {
					fmt.Fprintf(os.Stdout, `{"jsonrpc":"2.0","method":"noise","params":[%d,"%01000d"]}`+"\n", i, i)
					time.Sleep(time.Microsecond)
				}
			}()
		}
		ok := say(`{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID, params)
		if mode == "greets" && string(m.Method) == "initialize" {
			ok = say("%s", greeting)
		}
		if !ok {
			return 0
		}
	}
}

// stay does nothing until the process is killed, or asked to end.
func stay() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	<-c
}

// starts counts the starts of a program in a file, this one too.
func starts(file string) int {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0
	}
	defer f.Close()
	_, _ = f.WriteString(".")
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return int(info.Size())
}
