package transport

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// checkParts gives a Checker p in parts of n bytes.
func checkParts(p []byte, n int) bool {
	var c Checker
	for len(p) > 0 {
		part := p[:min(n, len(p))]
		p = p[len(part):]
		if !c.Write(part) {
			return false
		}
	}
	return c.Valid()
}

var checkedTexts = []string{
	``, ` `, `{}`, `[]`, `{"a":1}`, `{"a":[1,2,{"b":null}],"c":"d"}`, "\t[ 1 ,\r\n 2 ]\n", `[1,]`, `[,1]`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`,
	`{"a":1]`, `[1}`, `[`, `{`, `]`, `}`, `[]]`, `[] []`, `1 2`,
	`0`, `-0`, `-`, `01`, `1.`, `1.5`, `.5`, `1e`, `1e+`, `1e+5`, `1E-05`, `1.5e5.`, `--1`, `+1`, `[-1e5]`, `1x`, `0x`, `123 `,
	`true`, `false`, `null`, `tru`, `trux`, `nulll`, `True`, `[true,false,null]`,
	`"a"`, `"`, `"\`, `"\"`, `"\\"`, `"\n\b\f\r\t\/\""`, `"\x"`, `"\u12aF"`, `"\u12a"`, `"\u12ag"`, "\"a\nb\"", "\"\x00\"", "\"\x1f\"", "\"\x7f\"", `"0123456789abcdef"`, "\"01234567\x1f\"",
	`"äöü€😀"`, "\"\xff\"", "\"\xc3\"", "\"\xe2\x82\"", "\"\xe2\x82\xac\"", "\"\xed\xa0\x80\"", "\"\xf0\x9f\x98\x80\"", "\"\xf4\x90\x80\x80\"", "\xef\xbb\xbf{}", "{}\xc3", "ä",
	`{"a":"` + strings.Repeat("0123456789", 20) + `\"é"}`,
	strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
	strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
}

// TestCheckerAgrees compares with the library, however the text is cut.
func TestCheckerAgrees(t *testing.T) {
	for _, text := range checkedTexts {
		p := []byte(text)
		want := json.Valid(p) && utf8.Valid(p)
		for _, n := range []int{1, 2, 3, 7, 8, 9, 1 << 20} {
			if got := checkParts(p, n); got != want {
				t.Errorf("%.60q in parts of %d: got %v, want %v", text, n, got, want)
			}
		}
	}
}

func TestCheckerTellsMembers(t *testing.T) {
	const text = ` { "a" : 1, "b\"c":[{"d":1},"e"] ,"f":{"g":{}},"h":"i","j":true,"k":-1.5e3 } `
	want := []string{`"a"=1`, `"b\"c"=[{"d":1},"e"]`, `"f"={"g":{}}`, `"h"="i"`, `"j"=true`, `"k"=-1.5e3`}
	for _, n := range []int{1, 3, 1000} {
		c := Checker{Members: make([]Member, 0, 10)}
		for i := 0; i < len(text); i += n {
			c.Write([]byte(text[i:min(i+n, len(text))]))
		}
		var got []string
		for _, m := range c.Members {
			got = append(got, text[m.Key[0]:m.Key[1]]+"="+text[m.Value[0]:m.Value[1]])
		}
		if !c.Valid() || !slices.Equal(got, want) || c.Count() != len(text) {
			t.Errorf("in parts of %d: valid %v, %d bytes, members %q, want %q", n, c.Valid(), c.Count(), got, want)
		}
	}
	few := Checker{Members: make([]Member, 0, 1)}
	if few.Write([]byte(text)); len(few.Members) != 1 {
		t.Errorf("%d members where there is room for one", len(few.Members))
	}
	list := Checker{Members: make([]Member, 0, 1)}
	if list.Write([]byte(`[1,2]`)); len(list.Members) != 0 {
		t.Error("an array has no members")
	}
}

func FuzzChecker(f *testing.F) {
	for _, text := range checkedTexts {
		f.Add([]byte(text), 3)
	}
	f.Fuzz(func(t *testing.T, p []byte, n int) {
		if n < 1 || n > 1<<20 {
			n = 1
		}
		want := json.Valid(p) && utf8.Valid(p)
		if got := checkParts(p, n); got != want {
			t.Errorf("%q in parts of %d: got %v, want %v", p, n, got, want)
		}
	})
}

func TestCheckerNeedsLittle(t *testing.T) {
	large := append(append([]byte(`{"params":"`), bytes.Repeat([]byte("x"), 1<<20)...), `"}`...)
	if n := testing.AllocsPerRun(10, func() {
		if !checkParts(large, StepBytes) {
			t.Error("it is JSON")
		}
	}); n > 2 {
		t.Errorf("%v allocations for 1 MiB; want none but for the brackets", n)
	}
}

func BenchmarkChecker(b *testing.B) {
	text := append(append([]byte(`{"params":"`), bytes.Repeat([]byte("x"), 1<<20)...), `"}`...)
	tokens := append(append([]byte(`[`), bytes.Repeat([]byte(`{"a":12,"b":[true,"x"]},`), 1<<15)...), `0]`...)
	for name, p := range map[string][]byte{"text": text, "tokens": tokens} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if !checkParts(p, StepBytes) {
					b.Fatal("it is JSON")
				}
			}
		})
	}
}
