package router

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/transporthost/transporthost/shared/transport"
)

func TestClientName(t *testing.T) {
	long := strings.Repeat("x", longestName-1) + "äöü"
	for _, tt := range []struct {
		name, params, want string
		wellFormed         bool
	}{
		{"as codex has it", `{"clientInfo":{"name":"vscode","title":"VS Code","version":"1.2"},"capabilities":{"experimentalApi":true}}`, "vscode", true},
		{"as MCP has it", `{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"n","version":""}}`, "n", true},
		{"nulls", `{"clientInfo":{"name":"n","title":null,"version":"1"},"capabilities":null}`, "n", true},
		{"a language server's client", `{"processId":1,"clientInfo":{"name":"vim"},"capabilities":{}}`, "vim", true},
		{"a version that is no text", `{"clientInfo":{"name":"n","version":1}}`, "n", false},
		{"a title that is no text", `{"clientInfo":{"name":"n","version":"1","title":[]}}`, "n", false},
		{"capabilities that are none", `{"clientInfo":{"name":"n","version":"1"},"capabilities":[]}`, "n", false},
		{"a name that is no text", `{"clientInfo":{"name":7,"version":"1"}}`, "", false},
		{"an empty name", `{"clientInfo":{"name":"","version":"1"}}`, "", false},
		{"names are exact", `{"clientinfo":{"Name":"n","version":"1"}}`, "", false},
		{"no client", `{"capabilities":{}}`, "", false},
		{"params by position", `[{"clientInfo":{"name":"n"}}]`, "", false},
		{"null", `null`, "", false},
		{"a long name", `{"clientInfo":{"name":"` + long + `","version":"1"}}`, strings.Repeat("x", longestName-1), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, wellFormed := clientName([]byte(`{"id":1,"method":"initialize","params":` + tt.params + `}`))
			if got != tt.want || wellFormed != tt.wellFormed {
				t.Errorf("got %q, %v; want %q, %v", got, wellFormed, tt.want, tt.wellFormed)
			}
		})
	}
}

// TestTheHostHearsOfNames: of every well-formed initialize request, with the
// transport that it came through.
func TestTheHostHearsOfNames(t *testing.T) {
	var heard []string
	r, a, _, _ := setUp(t, consume, Config{ClientNamed: func(instance, name string) { heard = append(heard, instance+" "+name) }})
	a.Opened(1, transport.Opened{})
	for _, p := range []string{
		`{"method":"initialize","params":{"clientInfo":{"name":"notified","version":"1"}}}`,
		`{"id":1,"method":"other","params":{"clientInfo":{"name":"other","version":"1"}}}`,
		`{"id":2,"method":"initialize","params":{"clientInfo":{"name":"odd","version":2}}}`,
		`{"id":3,"method":"initialize","params":{"clientInfo":{"name":"first","version":"1"}}}`,
	} {
		a.Received(1, []byte(p), "", false)
	}
	if len(heard) != 1 || !strings.HasSuffix(heard[0], " first") {
		t.Errorf("heard %q, want one, first", heard)
	}
	if c := r.Connections(); len(c) != 1 || c[0].Peer.ClientName != "first" {
		t.Errorf("connections are %+v, want the name first", c)
	}
}

// FuzzClientName: whatever the request, the name is text of bounded size.
func FuzzClientName(f *testing.F) {
	f.Add([]byte(`{"id":1,"method":"initialize","params":{"clientInfo":{"name":"n","version":"1"}}}`))
	f.Add([]byte(`{"params":{"clientInfo":{"name":"\ud800","version":null}}}`))
	f.Add([]byte(`{"params":{"params":1}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		name, wellFormed := clientName(p)
		if len(name) > longestName || !utf8.ValidString(name) || wellFormed && name == "" {
			t.Errorf("%q: got %q, %v", p, name, wellFormed)
		}
	})
}
