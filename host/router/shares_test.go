package router

import (
	"testing"

	"github.com/transporthost/transporthost/shared/transport"
)

// TestSetTransports: one that is new is kept its part, and one that is gone keeps
// none. Of the table's 100, half is kept.
func TestSetTransports(t *testing.T) {
	r, a, _, _ := setUp(t, keepAll, Config{MaxConnections: 100, Transports: []string{"ws", "gone"}})
	last := transport.ConnID(0)
	fill := func(what string, want int) {
		t.Helper()
		for range 101 {
			last++
			a.Opened(last, transport.Opened{})
		}
		if r.Len() != want {
			t.Errorf("%s: %d connections, want %d", what, r.Len(), want)
		}
	}
	r.SetTransports([]string{"ws", "new", "newer", "gone", "another"})
	fill("five transports", 60)
	r.SetTransports([]string{"ws", "gone"})
	fill("two", 75)
	r.SetTransports([]string{"ws"})
	fill("alone", 100)
	r.SetTransports([]string{"ws", "late"}) // comes when the table is full
	if fill("full", 100); a.Connections() != 100 {
		t.Errorf("%d connections stay", a.Connections())
	}
}
