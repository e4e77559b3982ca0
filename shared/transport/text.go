package transport

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns s as one line that can be printed, cut at limit bytes: whatever
// is no printable character becomes a space, or "; " between lines. The words of
// a stranger must not command the terminal of whoever reads them, or write lines
// of their own into a log.
func Line(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = strings.Clone(s[:limit]) // not all of it stays in memory
	}
	s = strings.TrimSpace(s)
	if strings.Contains(s, "\n") {
		var lines []string
		for l := range strings.Lines(s) {
			if l = strings.TrimSpace(l); l != "" {
				lines = append(lines, l)
			}
		}
		s = strings.Join(lines, "; ")
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s))
}
