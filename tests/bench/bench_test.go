package main

import (
	"bytes"
	"math"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test program be what bench starts: a baseline server, and
// in the place of the host the coalescing one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "run":
			os.Args = []string{os.Args[0], "serve", "coalescing"}
			main()
		case "serve":
			main()
		}
	}
	goleak.VerifyTestMain(m)
}

func TestBenchMeasuresRealServers(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	code := run(t.Context(), []string{"-host", self, "-rounds", "1", "-duration", "100ms", "-idle", "50", "-pause", "100ms",
		"-only", "^(1x1x100B|10x2x64KiB|5 of 25|idle|start)"}, nil, &out, &log)
	if code != 0 {
		t.Fatalf("got status %d:\n%s%s", code, out.String(), log.String())
	}
	for _, want := range []string{"| 1x1x100B vs plain: added p50", "| 10x2x64KiB vs plain: throughput", "| 20 peers of 1 KiB",
		"| memory per peer of 50 idle ones", "| start of the host"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no line %q:\n%s", want, out.String())
		}
	}
}

func TestBenchRefusesWrongUse(t *testing.T) {
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown flag", []string{"-fast"}, 2, "-fast"},
		{"no rounds", []string{"-rounds", "0"}, 2, "-rounds of at least 1"},
		{"bad pattern", []string{"-only", "("}, 2, "regexp"},
		{"no host", []string{"-host", "/nonexistent/host"}, 1, "go run ./tools/dev build"},
		{"a host that ends", []string{"-host", "/bin/false", "-only", "^start$"}, 1, "ended before it was ready"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := os.Stat("/bin/false"); err != nil && tt.name == "a host that ends" {
				t.Skip("no /bin/false here")
			}
			var out, log bytes.Buffer
			if code := run(t.Context(), tt.args, nil, &out, &log); code != tt.code || !strings.Contains(log.String(), tt.want) {
				t.Errorf("got status %d and %q, want %d and %q", code, log.String(), tt.code, tt.want)
			}
		})
	}
}

func TestMedian(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   float64
	}{
		{"odd", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 2, 9}, 3},
		{"one", []float64{7}, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := median(tt.values); got != tt.want {
				t.Errorf("median of %v: got %v, want %v", tt.values, got, tt.want)
			}
		})
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: got %v, want NaN", got)
	}
}

func TestVerdict(t *testing.T) {
	tests := []struct {
		name  string
		value float64
		floor floor
		want  string
	}{
		{"reaches at least", 1.1, floor{atLeast: 1.1}, meetsFloor},
		{"misses at least", 1.09, floor{atLeast: 1.1}, belowFloor},
		{"reaches at most", 110, floor{atMost: 110}, meetsFloor},
		{"misses at most", 110.1, floor{atMost: 110}, belowFloor},
		{"negative", -3, floor{atMost: 110}, meetsFloor},
		{"no floor", 3, floor{}, noFloor},
		{"no number", math.NaN(), floor{atMost: 1}, notMeasured},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := (line{value: tt.value, floor: tt.floor}).verdict(); got != tt.want {
				t.Errorf("%v with %+v: got %q, want %q", tt.value, tt.floor, got, tt.want)
			}
		})
	}
}
