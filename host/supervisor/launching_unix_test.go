//go:build unix

package supervisor

import (
	"os"
	"sync/atomic"
	"testing"
)

// TestLaunchingSpansEveryLaunch: it begins before there is anything of a
// process, and is done when that has shaken hands, or is gone.
func TestLaunchingSpansEveryLaunch(t *testing.T) {
	for _, tt := range []struct {
		behaviour string
		launches  int32
		end       State
		sockets   int // directories of processes when it is done
	}{
		{"healthy", 1, Ready, 1},
		{"exits at once", 3, Failed, 0},
	} {
		t.Run(tt.behaviour, func(t *testing.T) {
			var begun, underWay atomic.Int32
			r := start(t, tt.behaviour, func(_ *Spec, o *Options) {
				dirs := func() int {
					entries, err := os.ReadDir(o.RuntimeDir)
					if err != nil {
						t.Error(err)
					}
					return len(entries)
				}
				o.Launching = func() func() {
					begun.Add(1)
					underWay.Add(1)
					if n := dirs(); n != 0 {
						t.Errorf("as a launch begins, %d processes are there", n)
					}
					return func() {
						underWay.Add(-1)
						if n := dirs(); n != tt.sockets {
							t.Errorf("after the launch %d processes are there, want %d", n, tt.sockets)
						}
					}
				}
			})
			r.await(string(tt.end), func(s Status) bool { return s.State == tt.end })
			if n, m := begun.Load(), underWay.Load(); n != tt.launches || m != 0 {
				t.Errorf("%d launches began, %d are under way, want %d and none", n, m, tt.launches)
			}
		})
	}
}
