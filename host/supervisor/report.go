package supervisor

import (
	"maps"
	"slices"

	"github.com/transporthost/transporthost/shared/transport"
)

// Bounds of what a plugin says of itself. Some of it is a stranger's words that
// the plugin passes on.
const (
	maxReportName    = 64
	maxReportText    = 1 << 10
	maxReportDetails = 32
)

// stateDisabled is what a plugin reports that is switched off, whoever did it.
const stateDisabled = "disabled"

// reported takes what a process says of itself. What one says that is not the
// plugin's present one is kept for when it is.
func (in *incarnation) reported(r transport.Status) {
	p := in.plugin
	r = presentable(r)
	p.mu.Lock()
	in.report = &r
	present := p.current == in
	p.mu.Unlock()
	if !present {
		return
	}
	p.update(func(s *Status) {
		if p.current != in { // replaced meanwhile
			return
		}
		s.Reported = in.report
		if p.link != nil { // before, start looks at it
			p.appearLocked(s)
		}
	})
}

// appearLocked sets the state of a process that is ready: it is what a person
// wants it to be, and else what it says of itself.
func (p *Plugin) appearLocked(s *Status) {
	if p.link == nil {
		return // it has gone meanwhile
	}
	before, noted := s.State, p.noted
	p.noted = false
	r := s.Reported
	switch {
	case !p.enabled && p.caps.SetEnabled:
		s.State, s.Cause, s.Remedy = Disabled, "switched off by a person", p.enableRemedy()
	case r != nil && !r.Ready && r.State == stateDisabled:
		s.State, s.Cause, s.Remedy = Disabled, r.Cause, r.Remedy
	case r != nil && !r.Ready:
		s.State, s.Cause, s.Remedy = Degraded, r.Cause, r.Remedy
	case r != nil && r.Cause != "":
		s.State, s.Cause, s.Remedy = Ready, r.Cause, r.Remedy
		p.noted = true
	case noted || before == Degraded || before == Disabled:
		s.State, s.Cause, s.Remedy = Ready, "", ""
	default: // why it was restarted last is still worth knowing
		s.State = Ready
	}
}

// presentable makes every text of r one bounded line that can be printed: the
// words of a stranger must not command a terminal, or write lines of their own
// into a log.
func presentable(r transport.Status) transport.Status {
	r.State, r.Cause, r.Remedy = line(r.State, maxReportName), line(r.Cause, maxReportText), line(r.Remedy, maxReportText)
	if len(r.Details) == 0 {
		return r
	}
	details := make(map[string]string, min(len(r.Details), maxReportDetails))
	for _, name := range slices.Sorted(maps.Keys(r.Details)) {
		if len(details) == maxReportDetails {
			break
		}
		details[line(name, maxReportName)] = line(r.Details[name], maxReportText)
	}
	r.Details = details
	return r
}

// line is s as it may be shown.
func line(s string, limit int) string { return transport.Line(s, limit) }
