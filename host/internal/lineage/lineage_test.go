package lineage

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestMarksOfHostsBelowEachOther(t *testing.T) {
	outer, inner, other := NewRun(), NewRun(), NewRun()
	env := environ([]string{"A=1", Variable + "=rubbish", "B=2"}, Mark{outer, 7}, "")
	if want := []string{"A=1", "B=2", Variable + "=" + outer.String() + ".7"}; !slices.Equal(env, want) {
		t.Fatalf("of one host: got %q, want %q", env, want)
	}
	below := environ(env, Mark{inner, 3}, outer.String()+".7")
	for run, want := range map[Run]uint32{outer: 7, inner: 3} {
		if child, ok := run.Child(below); !ok || child != want {
			t.Errorf("of a host below another: child of %v is %d, %v, want %d", run, child, ok, want)
		}
	}
	if child, ok := other.Child(below); ok {
		t.Errorf("another run finds its child %d in it", child)
	}
	long := environ(nil, Mark{inner, 1}, strings.Repeat("x", maxOuter+1))
	if want := Variable + "=" + inner.String() + ".1"; len(long) != 1 || long[0] != want {
		t.Errorf("below what is no mark any more: got %.60q, want %q", long, want)
	}
}

func TestMarksThatAreNone(t *testing.T) {
	run := NewRun()
	for _, value := range []string{"", ".", ",", run.String(), run.String() + ".", run.String() + ".-1", run.String() + ".4294967296",
		run.String()[1:] + ".1", "0000000000000000.1", "zzzzzzzzzzzzzzzz.1", run.String() + " .1"} {
		if child, ok := run.Child([]string{Variable + "=" + value}); ok {
			t.Errorf("%q: got child %d, want none", value, child)
		}
	}
	if child, ok := run.Child([]string{"X" + Variable + "=" + run.String() + ".1", "A=" + run.String() + ".1"}); ok {
		t.Errorf("in other variables: got child %d, want none", child)
	}
	if _, ok := Run(0).Child([]string{Variable + "=0000000000000000.1"}); ok {
		t.Error("the zero run has a child")
	}
}

// TestLimitsAreNobodyElses: neither small, nor what means unlimited.
func TestLimitsAreNobodyElses(t *testing.T) {
	for _, r := range []Run{1, 1 << 63, 1<<64 - 1, NewRun()} {
		for _, child := range []uint32{0, 1, 1<<32 - 1} {
			l := Mark{r, child}.limit()
			if l < 1<<60 || l >= 1<<63 || !isMark(l) || uint32(l) != child || l>>32 != r.prefix() {
				t.Errorf("the limit of %v.%d is %#x", r, child, l)
			}
		}
	}
	for _, l := range []uint64{0, 1 << 40, 1<<63 - 1<<62 - 1, 1 << 63, 1<<64 - 1} {
		if isMark(l) {
			t.Errorf("the limit %#x is taken for a mark", l)
		}
	}
}

func TestRunsAsText(t *testing.T) {
	r := NewRun()
	text, err := json.Marshal(map[string]any{"run": r})
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ Run Run }
	if err := json.Unmarshal(text, &back); err != nil || back.Run != r {
		t.Errorf("%s gives %v, %v, want %v", text, back.Run, err, r)
	}
	for _, bad := range []string{"", "1", "0000000000000000", strings.Repeat("f", 17), "000000000000000g", "-00000000000000f"} {
		if r, err := ParseRun(bad); err == nil {
			t.Errorf("ParseRun(%q) = %v, want an error", bad, r)
		}
	}
}
