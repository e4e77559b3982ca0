package supervisor

import (
	"time"

	"github.com/transporthost/transporthost/host/internal/sandbox"
	"github.com/transporthost/transporthost/shared/transport"
)

// A State is where a plugin is in its life.
type State string

// The states of design §5.
const (
	Starting   State = "starting"
	Ready      State = "ready"
	Degraded   State = "degraded" // alive, and says itself that peers cannot reach it
	BackingOff State = "backing-off"
	Failed     State = "failed" // until a person restarts it
	Stopping   State = "stopping"
	Stopped    State = "stopped"
	Disabled   State = "disabled" // by the configuration, without a process; or by a person, or itself, with one
)

// A Status is what is known of one plugin instance.
type Status struct {
	Instance     string            `json:"instance"`
	Plugin       string            `json:"plugin"`
	State        State             `json:"state"`
	Since        time.Time         `json:"since"`
	Incarnation  int               `json:"incarnation"`
	PID          int               `json:"pid,omitempty"`
	Path         string            `json:"path"`
	Version      string            `json:"version,omitempty"`
	Locality     string            `json:"locality,omitempty"`
	Capabilities []string          `json:"capabilities,omitempty"`
	Addresses    []string          `json:"addresses,omitempty"`
	Restarts     int               `json:"restarts"`
	Cause        string            `json:"cause,omitempty"`  // why it is in this state, or was restarted last
	Remedy       string            `json:"remedy,omitempty"` // what a person can do
	NextAttempt  *time.Time        `json:"next_attempt,omitempty"`
	Reported     *transport.Status `json:"reported,omitempty"` // by the plugin itself
	Sandbox      *sandbox.Report   `json:"sandbox,omitempty"`  // of the last process; nil before the first
	Conduct      Conduct           `json:"conduct,omitzero"`
	Successor    *Successor        `json:"successor,omitempty"`
	Retiring     []Retiring        `json:"retiring,omitempty"` // oldest first
}

// A Successor is a process that is being started to replace the present one.
type Successor struct {
	Incarnation int       `json:"incarnation"`
	PID         int       `json:"pid,omitempty"` // 0: not launched yet
	Since       time.Time `json:"since"`
}

// A Retiring is a process that has been replaced, and whose connections have not
// ended. It accepts nothing new.
type Retiring struct {
	Incarnation int       `json:"incarnation"`
	PID         int       `json:"pid"`
	Connections int       `json:"connections"`
	Since       time.Time `json:"since"`
	Until       time.Time `json:"until"` // then those that remain are closed
}

// Serves reports whether peers can reach the transport, or will as soon as a
// replacement that is under way has been made.
func (s Status) Serves() bool {
	return s.State == Ready || s.Successor != nil && s.State == Starting
}

// Conduct is what the processes of a plugin did that they should not do, since
// the host began. The router counts it.
type Conduct struct {
	Refused    int64  `json:"refused,omitempty"`    // connections over a limit of the host
	Violations int64  `json:"violations,omitempty"` // breaches of the link's rules
	Strays     int64  `json:"strays,omitempty"`     // events of connections that are not open
	Unknown    int64  `json:"unknown,omitempty"`    // events of a newer plugin
	Intrusions int64  `json:"intrusions,omitempty"` // connections to the admin socket
	Last       string `json:"last,omitempty"`       // what there was to complain of last
}

// Status returns what is known now. It does not wait for the plugin.
func (p *Plugin) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	for _, in := range p.retiring {
		s.Retiring = append(s.Retiring, in.retiringStatus())
	}
	return s
}

// update changes the status, and logs a change of it, once: of the state, of
// its cause, or of what the plugin says of itself.
func (p *Plugin) update(change func(*Status)) {
	p.mu.Lock()
	before := p.status
	change(&p.status)
	if p.status.State != before.State {
		p.status.Since = time.Now()
	}
	after := p.status
	p.mu.Unlock()
	said := reportedState(after)
	if after.State == before.State && after.Cause == before.Cause && said == reportedState(before) {
		return
	}
	unsaid := 0
	if after.State == before.State || said != reportedState(before) { // it says so itself, as often as it likes
		var ok bool
		if unsaid, ok = p.reports.take(); !ok {
			p.opts.Changed(p.instance)
			return
		}
	}
	args := []any{"state", string(after.State), "incarnation", after.Incarnation}
	if said != "" {
		args = append(args, "reported", said)
	}
	if after.Cause != "" {
		args = append(args, "cause", after.Cause)
	}
	if after.NextAttempt != nil {
		args = append(args, "next_attempt", after.NextAttempt.Format(time.RFC3339Nano))
	}
	if after.Remedy != "" {
		args = append(args, "remedy", after.Remedy)
	}
	if unsaid > 0 {
		args = append(args, "unsaid_before", unsaid)
	}
	switch {
	case after.State == BackingOff, after.State == Degraded && after.Cause != "" && (after.State != before.State || after.Cause != before.Cause):
		p.log.Warn("plugin", args...)
	case after.State == Failed:
		p.log.Error("plugin", args...)
	case after.State == Degraded && after.State == before.State && after.Cause == before.Cause:
		p.log.Debug("plugin", args...) // another attempt under way: not worth a line each
	default:
		p.log.Info("plugin", args...)
	}
	p.opts.Changed(p.instance)
}

func reportedState(s Status) string {
	if s.Reported == nil {
		return ""
	}
	return s.Reported.State
}
