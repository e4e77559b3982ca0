package servers

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var echoes = []struct{ name, request, want string }{
	{"object", `{"jsonrpc":"2.0","id":1,"method":"echo","params":{"a":[1,{"b":"}"}]}}`, `{"jsonrpc":"2.0","id":1,"result":{"a":[1,{"b":"}"}]}}`},
	{"params first", `{"params":[1,"\\\""],"jsonrpc":"2.0","id":"x","method":"echo"}`, `{"jsonrpc":"2.0","id":"x","result":[1,"\\\""]}`},
	{"params inside", `{"id":2,"x":{"params":1},"method":"echo","params":"p"}`, `{"jsonrpc":"2.0","id":2,"result":"p"}`},
	{"no params", `{"id":3,"method":"echo"}`, `{"jsonrpc":"2.0","id":3,"result":null}`},
	{"notification", `{"method":"echo"}`, ``},
}

func TestAppendEcho(t *testing.T) {
	for _, tt := range echoes {
		t.Run(tt.name, func(t *testing.T) {
			got, err := appendEcho(nil, []byte(tt.request))
			if err != nil || string(got) != tt.want {
				t.Errorf("got %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestChild(t *testing.T) {
	var in, want strings.Builder
	for _, e := range echoes {
		in.WriteString(e.request + "\n")
		if e.want != "" {
			want.WriteString(e.want + "\n")
		}
	}
	var out bytes.Buffer
	if err := Child(strings.NewReader(in.String()), &out); err != nil || out.String() != want.String() {
		t.Errorf("got %s, %v; want %s", out.String(), err, want.String())
	}
}

func TestServe(t *testing.T) {
	for _, style := range []Style{Plain, Coalescing} {
		t.Run(string(style), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- Serve(ctx, l, style) }()
			conn, _, err := websocket.DefaultDialer.Dial("ws://"+l.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range echoes[:4] {
				if err := conn.WriteMessage(websocket.TextMessage, []byte(e.request)); err != nil {
					t.Fatal(err)
				}
				if _, got, err := conn.ReadMessage(); err != nil || string(got) != e.want {
					t.Errorf("%s: got %s, %v; want %s", e.name, got, err, e.want)
				}
			}
			conn.Close()
			cancel()
			if err := <-served; err != nil {
				t.Errorf("serving: got %v, want nil", err)
			}
		})
	}
}
