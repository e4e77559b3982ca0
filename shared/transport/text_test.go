package transport

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain words", 100, "plain words"},
		{"  two\n\n\tlines\r\n", 100, "two; lines"},
		{"\x1b[2J\x1b]0;mine\x07ready", 100, "[2J ]0;mine ready"},
		{"a\u202eb\u2028c\x00d", 100, "a b c d"},
		{"not \xff text", 100, "not \ufffd text"},
		{"cut at a rune: ä", 16, "cut at a rune:"},
		{"cut", 0, ""},
		{"\n\n", 100, ""},
	} {
		if got := Line(tt.in, tt.limit); got != tt.want {
			t.Errorf("Line(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}

// FuzzLine: whatever a stranger says is one bounded line that can be printed.
func FuzzLine(f *testing.F) {
	f.Add("a\x1b[31mb", 8)
	f.Add("äöü\xff", 3)
	f.Add("a\nb\n\nc", 5)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit &= 0xfff
		got := Line(s, limit)
		// What is no text grows by at most two bytes a byte.
		if len(got) > 3*limit || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x1b\x00\u2028") {
			t.Errorf("Line(%q, %d): got %q", s, limit, got)
		}
	})
}
