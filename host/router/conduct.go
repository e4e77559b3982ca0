package router

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// Conduct is what the processes of one transport did that a plugin should not
// do, since the router was made.
type Conduct struct {
	Refused    int64  `json:"refused,omitempty"`    // connections over a limit of the host
	Violations int64  `json:"violations,omitempty"` // breaches of the link's rules
	Strays     int64  `json:"strays,omitempty"`     // events of connections that are not open
	Unknown    int64  `json:"unknown,omitempty"`    // events of a newer plugin
	Intrusions int64  `json:"intrusions,omitempty"` // connections to what is not for plugins: the admin socket
	Last       string `json:"last,omitempty"`       // what there was to complain of last
}

// A record keeps the conduct of one transport.
type record struct {
	mu sync.Mutex // guards what follows
	c  Conduct

	complained time.Time // when the log last heard of it
	unsaid     int       // complaints since then that it did not
}

// complainEvery is how often the log hears of one transport's conduct: a plugin
// that does wrong a hundred thousand times does not fill the disk.
const complainEvery = 10 * time.Second

// complain counts in what count points to, remembers the text, and logs it if it
// is time for that.
func (r *record) complain(log hclog.Logger, count func(*Conduct) *int64, format string, args ...any) {
	r.mu.Lock()
	*count(&r.c)++
	now := time.Now()
	if !r.complained.IsZero() && now.Sub(r.complained) < complainEvery {
		r.unsaid++
		r.mu.Unlock()
		return
	}
	unsaid := r.unsaid
	r.complained, r.unsaid = now, 0
	text := transport.Line(fmt.Sprintf(format, args...), longestPeerText)
	r.c.Last = text
	r.mu.Unlock()
	if unsaid > 0 {
		log.Warn("a plugin does what it should not", "what", text, "unsaid_before", unsaid)
		return
	}
	log.Warn("a plugin does what it should not", "what", text)
}

func refused(c *Conduct) *int64    { return &c.Refused }
func violations(c *Conduct) *int64 { return &c.Violations }
func strays(c *Conduct) *int64     { return &c.Strays }
func unknown(c *Conduct) *int64    { return &c.Unknown }
func intrusions(c *Conduct) *int64 { return &c.Intrusions }

// Intruded counts that a process of the transport instance, or one that descends
// from it, connected to what is not for plugins.
func (r *Router) Intruded(instance string, pid int) {
	r.record(instance).complain(r.cfg.Logger.With("instance", instance), intrusions, "process %d connected to the admin socket, and was refused", pid)
}

// record returns that of instance.
func (r *Router) record(instance string) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.records[instance]
	if rec == nil {
		rec = &record{}
		r.records[instance] = rec
	}
	return rec
}

// Conduct returns that of the transport instance.
func (r *Router) Conduct(instance string) Conduct {
	rec := r.record(instance)
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.c
}
