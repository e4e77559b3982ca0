package backend

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// keepalive is how often a controller's virtual client is pinged: a host
// forgets one that says nothing for ten minutes.
const keepalive = time.Minute

// serveController makes whoever connects a virtual client: text frames are
// JSON-RPC messages in both directions, and the end of the WebSocket is the
// end of the client. The query has client, and may have stream and server.
func (b *Backend) serveController(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Get("client") == "" {
		http.Error(w, "connect to "+ControllerPath+"?client=NAME", http.StatusBadRequest)
		return
	}
	// The upgrader refuses web pages of other origins: whoever connects here
	// controls a host.
	sock, err := new(websocket.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer sock.Close()
	c, err := b.Open(ClientOptions{ID: query.Get("client"), StreamID: cmp.Or(query.Get("stream"), NewStreamID()), ServerID: query.Get("server")})
	if err != nil {
		closing := websocket.FormatCloseMessage(websocket.ClosePolicyViolation, "this client is connected already")
		_ = sock.WriteControl(websocket.CloseMessage, closing, time.Now().Add(closeTimeout))
		return
	}
	b.log.Info("a controller connected", "client", c.id, "stream", c.stream)
	ctx, cancel := context.WithCancel(r.Context())
	controller := &controller{sock: sock, client: c}
	var others sync.WaitGroup
	others.Go(func() {
		controller.forward(ctx)
		_ = sock.Close() // ends the reader
	})
	others.Go(func() { controller.keepAlive(ctx) })
	controller.read()
	c.Close()
	cancel()
	others.Wait()
	b.log.Info("a controller left", "client", c.id, "stream", c.stream)
}

// A controller is a person's end of a virtual client.
type controller struct {
	sock   *websocket.Conn
	mu     sync.Mutex // guards the writing of messages
	client *Client
}

// read passes messages to the host until the controller goes.
func (c *controller) read() {
	c.sock.SetReadLimit(maxFrame)
	for {
		_, text, err := c.sock.ReadMessage()
		if err != nil {
			return
		}
		if err := c.client.Send(text); err != nil {
			answer, err := encodeError(-32600, err.Error())
			if err != nil || c.write(answer) != nil {
				return
			}
		}
	}
}

// forward passes the host's messages on until ctx or the client ends.
func (c *controller) forward(ctx context.Context) {
	for {
		m, err := c.client.Receive(ctx)
		if err != nil || c.write(m.Payload) != nil {
			return
		}
	}
}

func (c *controller) keepAlive(ctx context.Context) {
	ticker := time.NewTicker(keepalive)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			asking, cancel := context.WithTimeout(ctx, keepalive)
			_, err := c.client.Ping(asking)
			cancel()
			if err != nil && ctx.Err() != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (c *controller) write(text []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock() // held during the write: two writers of one socket would tear frames
	if err := c.sock.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return c.sock.WriteMessage(websocket.TextMessage, text)
}
