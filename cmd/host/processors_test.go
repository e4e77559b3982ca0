package main

import (
	"runtime"
	"testing"
)

func TestProcessorsDuringLaunches(t *testing.T) {
	all := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(all) })
	for _, tt := range []struct{ machine, usual, launching int }{
		{1, 1, 1}, {2, 1, 2}, {3, 1, 2}, {4, 2, 2}, {16, 8, 8},
	} {
		runtime.GOMAXPROCS(tt.machine)
		p := shareProcessors()
		check := func(when string, want int) {
			t.Helper()
			if got := runtime.GOMAXPROCS(0); got != want {
				t.Errorf("of %d processors it uses %d %s, want %d", tt.machine, got, when, want)
			}
		}
		check("at rest", tt.usual)
		first, second := p.launching(), p.launching()
		check("during two launches", tt.launching)
		first()
		check("during the other one", tt.launching)
		second()
		check("behind them", tt.usual)
	}
}
