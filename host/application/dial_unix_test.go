//go:build unix

package application

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/shared/transport"
)

// respond answers a request with its params, as [actAsApplication] does; the
// method "leave" is answered by nobody.
func respond(p []byte) (answer string, leave bool) {
	m, err := transport.Peek(p)
	if err != nil || m.Kind != transport.Request {
		return "", false
	}
	if string(m.Method) == "leave" {
		return "", true
	}
	return `{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":` + string(transport.Field(p, "params")) + `}`, false
}

// unixServer serves one connection after the other until the test ends.
func unixServer(t *testing.T, framing transport.Framing) (url string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "dial")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r := transport.NewFrameReader(c, framing, 1<<20)
			for {
				p, err := r.Next()
				if err != nil {
					break
				}
				answer, leave := respond(p)
				if leave {
					break
				}
				if answer != "" {
					_, _ = c.Write(transport.AppendFrame(nil, []byte(answer), framing))
				}
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-served
		_ = os.RemoveAll(dir)
	})
	return "unix://" + filepath.Join(dir, "s")
}

func webSocketServer(t *testing.T) (url string) {
	t.Helper()
	upgrader := websocket.Upgrader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/app" {
			http.Error(w, "not here", http.StatusNotFound)
			return
		}
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			_, p, err := c.ReadMessage()
			if err != nil {
				return
			}
			answer, leave := respond(p)
			if leave {
				return
			}
			if err := c.WriteMessage(websocket.BinaryMessage, []byte("dropped")); err != nil {
				return
			}
			if answer != "" && c.WriteMessage(websocket.TextMessage, []byte(answer)) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http") + "/app?token=hunter2"
}

func dialApp(t *testing.T, e Endpoint) App {
	e.StopGrace = 200 * time.Millisecond
	return runApp(t, func(*childproc.Starter) (App, error) {
		return NewDial(e, hclog.New(&hclog.LoggerOptions{Output: t.Output()}))
	})
}

func TestDial(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    Endpoint
	}{
		{"ndjson", Endpoint{URL: unixServer(t, transport.NDJSON)}},
		{"content-length", Endpoint{URL: unixServer(t, transport.ContentLength), Framing: transport.ContentLength}},
		{"websocket", Endpoint{URL: webSocketServer(t)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := dialApp(t, tt.e)
			c := newFakeConn()
			s := app.Open(c)
			deliver(t, s, `{"id":"a","method":"m","params":[1, 2]}`)
			deliver(t, s, `{"method":"note"}`)
			deliver(t, s, `{"id":"b","method":"m","params":"`+strings.Repeat("x", 100_000)+`"}`)
			if got, want := c.next(t), `{"jsonrpc":"2.0","id":"a","result":[1, 2]}`; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if got := c.next(t); len(got) < 100_000 {
				t.Errorf("got %s", got)
			}
			if st := app.Status(); st.Driver != "dial" || st.InFlight != 0 || strings.Contains(st.Command, "hunter2") {
				t.Errorf("status %+v", st)
			}
			// The server leaves with a request unanswered.
			deliver(t, s, `{"id":1.0,"method":"leave"}`)
			if got := c.next(t); !strings.HasPrefix(got, `{"jsonrpc":"2.0","id":1.0,"error":{"code":-32603`) {
				t.Errorf("got %s", got)
			}
			c.nextClose(t)
			s.Closed(transport.CloseReason{})

			// And a peer that leaves.
			c = newFakeConn()
			s = app.Open(c)
			deliver(t, s, `{"id":2,"method":"m","params":1}`)
			c.next(t)
			s.Closed(transport.CloseReason{Code: transport.ClosePeerGone})
			c.nextClose(t)
		})
	}
}

func TestDialTellsWhyThereIsNobody(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "s")
	elsewhere := strings.Replace(webSocketServer(t), "/app", "/other", 1)
	for _, tt := range []struct{ name, url, want string }{
		{"no socket", "unix://" + missing, "no such file or directory; is it running?"},
		{"no upgrade", elsewhere, "the server answers 404 Not Found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := dialApp(t, Endpoint{URL: tt.url})
			c := newFakeConn()
			s := app.Open(c)
			deliver(t, s, `{"id":1,"method":"m"}`)
			r := c.nextClose(t)
			if got := c.next(t); !strings.Contains(got, `"id":1,"error"`) || !strings.Contains(r.Text, tt.want) || strings.Contains(r.Text, "hunter2") {
				t.Errorf("answer %s, closed with %v; want %q", got, r, tt.want)
			}
			if st := app.Status(); !strings.Contains(st.Cause, tt.want) {
				t.Errorf("status %+v", st)
			}
			s.Closed(transport.CloseReason{})
		})
	}
}

func TestDialRefusesAddresses(t *testing.T) {
	for _, url := range []string{"", "tcp://127.0.0.1:1", "unix://relative", "unix:///a?b", "ws://", "http://x/", "ws://u:p@x/", "ws://x/#f", "%"} {
		if _, err := NewDial(Endpoint{URL: url}, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "expected `unix:///PATH`") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
