//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// buildGopls builds the language server that tools/gopls.mod pins.
func buildGopls(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "gopls")
	cmd := exec.Command("go", "build", "-modfile=tools/gopls.mod", "-o", out, "golang.org/x/tools/gopls")
	cmd.Dir = strings.TrimSpace(string(root))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building gopls: %v\n%s", err, text)
	}
	return out
}

// A lspClient is a language server's client over WebSocket: it answers what the
// server asks with null, and ignores what it tells.
type lspClient struct {
	t  *testing.T
	ws *websocket.Conn
	id int
}

func (c *lspClient) write(v any) {
	c.t.Helper()
	if err := c.ws.WriteJSON(v); err != nil {
		c.t.Fatalf("writing: %v", err)
	}
}

func (c *lspClient) notify(method string, params any) {
	c.t.Helper()
	c.write(map[string]any{"jsonrpc": "2.0", "method": method, "params": params})
}

// call sends a request and returns its result.
func (c *lspClient) call(method string, params any) json.RawMessage {
	c.t.Helper()
	c.id++
	c.write(map[string]any{"jsonrpc": "2.0", "id": c.id, "method": method, "params": params})
	for {
		var m struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params struct {
				Items []any `json:"items"`
			} `json:"params"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err := c.ws.ReadJSON(&m); err != nil {
			c.t.Fatalf("waiting for the answer to %s: %v", method, err)
		}
		switch {
		case m.Method != "" && m.ID != nil: // workspace/configuration wants a list
			result := any(nil)
			if len(m.Params.Items) > 0 {
				result = make([]any, len(m.Params.Items))
			}
			c.write(map[string]any{"jsonrpc": "2.0", "id": m.ID, "result": result})
		case m.Method == "" && string(m.ID) == fmt.Sprint(c.id):
			if m.Error != nil {
				c.t.Fatalf("%s: %s", method, m.Error)
			}
			return m.Result
		}
	}
}

// TestGopls runs a language server that we did not write behind the host, with
// its own framing.
func TestGopls(t *testing.T) {
	gopls := buildGopls(t)
	dir := t.TempDir()
	const source = "package main\n\nfunc answer() int { return 42 }\n\nfunc main() { _ = answer() }\n"
	for name, text := range map[string]string{"go.mod": "module example\n\ngo 1.26\n", "main.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	uri := "file://" + filepath.Join(dir, "main.go")
	for _, mode := range []string{"per-connection", "shared"} {
		t.Run(mode, func(t *testing.T) {
			h := start(t, "--listen", "ws://127.0.0.1:0", "--framing", "content-length", "--mode", mode, "--", gopls)
			c := &lspClient{t: t, ws: h.dial()}
			got := c.call("initialize", map[string]any{
				"processId": nil, "rootUri": "file://" + dir, "capabilities": map[string]any{},
				"workspaceFolders": []any{map[string]any{"uri": "file://" + dir, "name": "example"}},
			})
			if !strings.Contains(string(got), `"hoverProvider"`) {
				t.Errorf("initialize: %s", got)
			}
			c.notify("initialized", map[string]any{})
			c.notify("textDocument/didOpen", map[string]any{"textDocument": map[string]any{
				"uri": uri, "languageId": "go", "version": 1, "text": source,
			}})
			at := map[string]any{"textDocument": map[string]any{"uri": uri}, "position": map[string]any{"line": 4, "character": 20}}
			if got := c.call("textDocument/hover", at); !strings.Contains(string(got), "func answer() int") {
				t.Errorf("hover: %s", got)
			}
			if got := c.call("textDocument/definition", at); !strings.Contains(string(got), `"line":2`) {
				t.Errorf("definition: %s", got)
			}
			if got := c.call("shutdown", nil); string(got) != "null" {
				t.Errorf("shutdown: %s", got)
			}
			c.notify("exit", nil)
			if mode == "shared" { // one peer's exit is not everybody's
				if s := h.status(); !s.Application.Ready || s.Application.Restarts != 0 {
					t.Errorf("after one peer's exit: %+v", s.Application)
				}
				return
			}
			for {
				_, _, err := c.ws.ReadMessage()
				if err == nil {
					continue // what it still had to say
				}
				if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
					t.Errorf("after exit: %v, want close code 1000", err)
				}
				return
			}
		})
	}
}
