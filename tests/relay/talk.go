package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

const (
	// maxLine is how long a message on stdin may be.
	maxLine     = 64 << 20
	dialTimeout = 10 * time.Second
)

// errUnanswered is returned if requests were still open when the wait was over.
var errUnanswered = errors.New("not every request was answered")

// talk passes lines of stdin to the host as messages, and prints its messages
// as lines. At the end of stdin it waits for the answers that are due.
func talk(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("relay talk", flag.ContinueOnError)
	flags.SetOutput(stderr)
	target := flags.String("url", "ws://"+defaultListen+backend.ControllerPath, "`URL` of the relay's controllers")
	client := flags.String("client", "terminal", "`name` of this virtual client")
	wait := flags.Duration("wait", 30*time.Second, "how long to wait for answers after the end of stdin")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return errUsage
	}
	u, err := url.Parse(*target)
	if err != nil || flags.NArg() > 0 || *client == "" {
		flags.Usage()
		return errUsage
	}
	query := u.Query()
	query.Set("client", *client)
	u.RawQuery = query.Encode()
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	sock, response, err := websocket.DefaultDialer.DialContext(dialing, u.String(), nil)
	if err != nil {
		if response != nil {
			err = fmt.Errorf("%w: %s", err, response.Status)
		}
		return fmt.Errorf("connecting to %s: %w", u, err)
	}
	c := &conversation{sock: sock, out: stdout, open: map[string]bool{}, settled: make(chan struct{})}
	return c.run(ctx, stdin, *wait)
}

// A conversation is one WebSocket of a controller.
type conversation struct {
	sock *websocket.Conn
	out  io.Writer

	mu      sync.Mutex      // guards what follows
	open    map[string]bool // ids of requests without an answer
	sent    bool            // stdin has ended
	settled chan struct{}   // closed once stdin has ended and nothing is open
}

// run ends with stdin and the answers that are due, with the socket or with
// ctx. A terminal cannot be made to return from a read: the goroutine that
// reads stdin may outlive run, and ends with the process.
func (c *conversation) run(ctx context.Context, stdin io.Reader, wait time.Duration) error {
	var reader sync.WaitGroup
	defer reader.Wait()
	defer c.sock.Close()
	ended := make(chan error, 1)
	reader.Go(func() { ended <- c.print() })
	lines := make(chan error, 1)
	go func() { lines <- c.send(stdin) }()
	var late <-chan time.Time
	for {
		select {
		case err := <-lines:
			if err != nil {
				return err
			}
			lines = nil
			timer := time.NewTimer(wait)
			defer timer.Stop()
			late = timer.C
			c.settle(func() { c.sent = true })
		case <-c.settled:
			return c.sock.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
		case <-late:
			return fmt.Errorf("waiting for %v: %w", wait, errUnanswered)
		case err := <-ended:
			return cmp.Or(err, errors.New("the relay closed the connection"))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settle changes what is open and sees whether that was all.
func (c *conversation) settle(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	if !c.sent || len(c.open) > 0 {
		return
	}
	select {
	case <-c.settled:
	default:
		close(c.settled)
	}
}

// send is the only writer of the socket while run lasts.
func (c *conversation) send(stdin io.Reader) error {
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if id, method := peek(line); id != "" && method {
			c.settle(func() { c.open[id] = true })
		}
		if err := c.sock.WriteMessage(websocket.TextMessage, line); err != nil {
			return fmt.Errorf("sending: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading stdin: %w", err)
	}
	return nil
}

func (c *conversation) print() error {
	for {
		_, text, err := c.sock.ReadMessage()
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		var line bytes.Buffer
		if json.Compact(&line, text) != nil {
			line.Write(text)
		}
		line.WriteByte('\n')
		if _, err := c.out.Write(line.Bytes()); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		if id, method := peek(text); !method {
			c.settle(func() { delete(c.open, id) })
		}
	}
}

// peek reads the id of a message, "" if it has none, and whether it has a
// method.
func peek(message []byte) (id string, method bool) {
	var m struct {
		ID     json.RawMessage `json:"id"`
		Method *string         `json:"method"`
	}
	if json.Unmarshal(message, &m) != nil {
		return "", false
	}
	return string(m.ID), m.Method != nil
}
