//go:build unix

//lint:file-ignore SA1019 sampling is deprecated since 2026-07-28, and what clients of older versions speak.

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// A wsTransport is the official MCP SDK's client transport over WebSocket.
type wsTransport struct{ url string }

func (t wsTransport) Connect(ctx context.Context) (mcp.Connection, error) {
	ws, _, err := websocket.DefaultDialer.DialContext(ctx, t.url, nil)
	if err != nil {
		return nil, err
	}
	return &wsConn{ws: ws}, nil
}

type wsConn struct {
	ws *websocket.Conn
	mu sync.Mutex // one writer at a time
}

func (c *wsConn) Read(context.Context) (jsonrpc.Message, error) {
	_, p, err := c.ws.ReadMessage()
	if err != nil {
		return nil, err
	}
	return jsonrpc.DecodeMessage(p)
}

func (c *wsConn) Write(_ context.Context, m jsonrpc.Message) error {
	p, err := jsonrpc.EncodeMessage(m)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ws.WriteMessage(websocket.TextMessage, p)
}

func (c *wsConn) Close() error      { return c.ws.Close() }
func (c *wsConn) SessionID() string { return "" }

// legacy is a protocol version in which servers ask their clients.
const legacy = "2025-06-18"

// connectMCP is an MCP client that answers what servers ask.
func connectMCP(t *testing.T, tr mcp.Transport, name, version string) (*mcp.ClientSession, *progress) {
	t.Helper()
	seen := &progress{heard: make(chan float64, 100)}
	client := mcp.NewClient(&mcp.Implementation{Name: name, Version: "1"}, &mcp.ClientOptions{
		CreateMessageHandler: func(_ context.Context, r *mcp.CreateMessageRequest) (*mcp.CreateMessageResult, error) {
			text := r.Params.Messages[0].Content.(*mcp.TextContent).Text
			return &mcp.CreateMessageResult{Model: "test", Role: "assistant", Content: &mcp.TextContent{Text: name + " read " + text}}, nil
		},
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"name": name}}, nil
		},
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			seen.heard <- r.Params.Progress
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s, err := client.Connect(ctx, tr, &mcp.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		t.Fatalf("connecting %s: %v", name, err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, seen
}

// progress is what a client heard of progress: the SDK calls its handler in its
// own time.
type progress struct{ heard chan float64 }

func (p *progress) next(n int) string {
	var list []float64
	for range n {
		select {
		case f := <-p.heard:
			list = append(list, f)
		case <-time.After(limit):
			return fmt.Sprint(list)
		}
	}
	return fmt.Sprint(list)
}

// call calls a tool and returns the text of its answer.
func call(ctx context.Context, s *mcp.ClientSession, tool string, args map[string]any) (string, error) {
	r, err := s.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		return "", err
	}
	var text string
	for _, c := range r.Content {
		if tc, ok := c.(*mcp.TextContent); ok {
			text += tc.Text
		}
	}
	if r.IsError {
		return "", fmt.Errorf("tool error: %s", text)
	}
	return text, nil
}

// exercise runs the SDK's feature set on one session. asks says whether the
// server may ask this client.
func exercise(t *testing.T, s *mcp.ClientSession, seen *progress, name string, asks bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	want := func(what, got string, err error, want string) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %s = %q, %v; want %q", name, what, got, err, want)
		}
	}
	tools, err := s.ListTools(ctx, nil)
	if err != nil || len(tools.Tools) != 5 {
		t.Errorf("%s: %d tools, %v", name, len(tools.Tools), err)
	}
	got, err := call(ctx, s, "add", map[string]any{"a": 2, "b": 40})
	want("add", got, err, `{"sum":42}`)
	got, err = call(ctx, s, "word_count", map[string]any{"text": "one two\nthree"})
	want("word_count", got, err, `{"words":3}`)
	r, err := s.ReadResource(ctx, &mcp.ReadResourceParams{URI: "example://about"})
	if err != nil || !strings.Contains(r.Contents[0].Text, "example MCP server") {
		t.Errorf("%s: resource %+v, %v", name, r, err)
	}
	p, err := s.GetPrompt(ctx, &mcp.GetPromptParams{Name: "review", Arguments: map[string]string{"language": "Go"}})
	if err != nil || p.Messages[0].Content.(*mcp.TextContent).Text != "Review this Go code." {
		t.Errorf("%s: prompt %+v, %v", name, p, err)
	}
	params := &mcp.CallToolParams{Name: "countdown", Arguments: map[string]any{"from": 3, "milliseconds": 1}}
	params.SetProgressToken("same token for all")
	if _, err := s.CallTool(ctx, params); err != nil {
		t.Errorf("%s: countdown: %v", name, err)
	}
	if got := seen.next(3); got != "[1 2 3]" {
		t.Errorf("%s: progress %s, want [1 2 3]", name, got)
	}
	if asks {
		got, err = call(ctx, s, "ask", nil)
		want("ask", got, err, "Hello, "+name+".")
		got, err = call(ctx, s, "summarize", map[string]any{"text": "x"})
		want("summarize", got, err, name+" read Summarize: x")
	}
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := call(short, s, "countdown", map[string]any{"from": 1000, "milliseconds": 1000}); err == nil {
		t.Errorf("%s: a countdown of 1000 s was not cancelled", name)
	}
	if err := s.Ping(ctx, nil); err != nil {
		t.Errorf("%s: ping after a cancelled call: %v", name, err)
	}
}

func TestMCPPerConnection(t *testing.T) {
	h := start(t, "--listen", "ws://127.0.0.1:0", "--", bin().mcpServer())
	var wg sync.WaitGroup
	for i := range 3 {
		name := fmt.Sprintf("peer%d", i)
		s, seen := connectMCP(t, wsTransport{h.url()}, name, legacy)
		wg.Go(func() { exercise(t, s, seen, name, true) })
	}
	wg.Wait()
	if st := h.status(); st.Application.Children != 3 || st.Connections != 3 {
		t.Errorf("%d processes for %d connections, want 3 for 3", st.Application.Children, st.Connections)
	}
}

func TestMCPShared(t *testing.T) {
	h := start(t, "--listen", "ws://127.0.0.1:0", "--mode", "shared", "--", bin().mcpServer())
	// The first peer alone is asked and asks; with several, the first answer to
	// a request of the server wins, whoever it is from.
	s, seen := connectMCP(t, wsTransport{h.url()}, "first", legacy)
	exercise(t, s, seen, "first", true)
	var wg sync.WaitGroup
	for i := range 5 {
		name := fmt.Sprintf("peer%d", i)
		s, seen := connectMCP(t, wsTransport{h.url()}, name, legacy)
		wg.Go(func() { exercise(t, s, seen, name, false) })
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if got, err := call(ctx, s, "ask", nil); err != nil || !strings.HasPrefix(got, "Hello, ") {
		t.Errorf("ask among six: %q, %v", got, err)
	}
	if st := h.status(); st.Application.Children != 1 || st.Connections != 6 {
		t.Errorf("%d processes for %d connections, want 1 for 6", st.Application.Children, st.Connections)
	}
}

// TestMCPStdioAndWebSocketOnOneApplication is the core idea: several transports
// at once, one application.
func TestMCPStdioAndWebSocketOnOneApplication(t *testing.T) {
	for _, version := range []string{legacy, ""} {
		t.Run("protocol "+version, func(t *testing.T) {
			h := start(t, "--listen", "ws://127.0.0.1:0", "--listen", "stdio://", "--mode", "shared", "--", bin().mcpServer())
			local, seenLocal := connectMCP(t, &mcp.IOTransport{Reader: readCloser{h.stdout}, Writer: h.stdin}, "terminal", version)
			remote, seenRemote := connectMCP(t, wsTransport{h.url()}, "browser", version)
			var wg sync.WaitGroup
			wg.Go(func() { exercise(t, local, seenLocal, "terminal", false) })
			wg.Go(func() { exercise(t, remote, seenRemote, "browser", false) })
			wg.Wait()
			if st := h.status(); st.Application.Children != 1 || st.Connections != 2 {
				t.Errorf("%d processes for %d connections, want 1 for 2", st.Application.Children, st.Connections)
			}
		})
	}
}

// TestMCPOverStdioAlone lets the SDK start the host as it would the server.
func TestMCPOverStdioAlone(t *testing.T) {
	cmd := exec.Command(bin().host(), "run", "--runtime-dir", runtimeDir(t), "--", bin().mcpServer())
	s, seen := connectMCP(t, &mcp.CommandTransport{Command: cmd}, "alone", legacy)
	exercise(t, s, seen, "alone", true)
	if err := s.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the host ended with status %d", code)
	}
}
