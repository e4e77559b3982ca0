//go:build unix

package supervisor

import (
	"testing"
	"time"
)

// TestARetiringProcessThatDoesNotDrain does not keep its place for the time that
// one with connections gets.
func TestARetiringProcessThatDoesNotDrain(t *testing.T) {
	for behaviour, change := range map[string]func(*Options){
		"stops in Drain": func(o *Options) { // it is found to hang
			o.DrainTimeout, o.ProbeInterval, o.ProbeTimeout = time.Hour, 100*time.Millisecond, 2*time.Second
		},
		"never ends its Drain": func(o *Options) { o.DrainTimeout = 100 * time.Millisecond },
	} {
		t.Run(behaviour, func(t *testing.T) {
			r := startListeningAs(t, behaviour, func(o *Options) {
				o.RetireTimeout = time.Hour
				change(o)
			})
			old := r.plugin.Status().PID
			if err := r.plugin.Replace(t.Context(), r.behaving("listens")); err != nil {
				t.Fatal(err)
			}
			r.awaitRetired(old)
		})
	}
}
