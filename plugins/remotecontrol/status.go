package remotecontrol

import (
	"cmp"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A linkState is where the way to the relay is (spec 0.2, 7).
type linkState string

const (
	stateDisabled       linkState = "disabled"
	stateWaitingForName linkState = "waiting-for-client-name"
	stateWaitingForAuth linkState = "waiting-for-auth"
	stateEnrolling      linkState = "enrolling"
	stateConnecting     linkState = "connecting"
	stateConnected      linkState = "connected"
	stateRetrying       linkState = "retrying"
	stateNeedsUser      linkState = "needs-user"
	stateStopped        linkState = "stopped"
)

// facts are what the status is made of.
type facts struct {
	state  linkState
	cause  string // one line, the server's words if it had any
	remedy string
	text   string // of the failure, for the log and the details

	url           string
	route         string
	profile       profile
	serverName    string
	account       string
	environmentID string
	serverID      string
	token         string // what the link authenticates with, for people
	clients       int
	counters      map[string]string

	lastError   string    // until a link has settled; "" is none
	lastErrorAt time.Time // when it was first noted
	attempts    int       // failed, in a row
	nextAttempt time.Time // zero: not a time that is known
	httpStatus  string    // of the last failure, like the two below
	requestID   string
	cfRay       string

	strictness pluginsdk.AuthStrictness
	unusable   string // why the host has no usable credentials; "" if it has
}

// A reporter tells the host, and the log, how the transport is. It is safe for
// concurrent use.
type reporter struct {
	report func(pluginsdk.Status)
	log    hclog.Logger

	mu     sync.Mutex // guards what follows; report does not block
	facts  facts
	since  time.Time
	last   pluginsdk.Status
	logged string // the line that the log has last
}

func newReporter(report func(pluginsdk.Status), log hclog.Logger, f facts) *reporter {
	return &reporter{report: report, log: log, facts: f}
}

// update changes the facts and reports the status if that changes it. The log
// gets a line once per change; what only passes by is logged for debugging.
func (r *reporter) update(change func(f *facts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.facts.state
	change(&r.facts)
	if r.facts.state == "" {
		return // nothing was said yet
	}
	if r.facts.state != before {
		r.since = time.Now()
	}
	s := r.facts.status(r.since)
	if s.State == r.last.State && s.Ready == r.last.Ready && s.Cause == r.last.Cause && s.Remedy == r.last.Remedy && maps.Equal(s.Details, r.last.Details) {
		return
	}
	r.last = s
	r.report(s)
	r.write(s)
}

func (r *reporter) write(s pluginsdk.Status) {
	f := &r.facts
	if f.state == stateConnecting || f.state == stateEnrolling {
		r.log.Debug("remote control is "+s.State, "url", f.url, "route", f.route)
		return
	}
	line := s.State
	if s.Cause != "" {
		line += ": " + s.Cause
	}
	if line == r.logged {
		return
	}
	r.logged = line
	switch {
	case f.state == stateRetrying || f.state == stateNeedsUser:
		r.log.Warn("failed to connect to app-server remote control websocket: "+f.url+", err: "+cmp.Or(f.text, f.cause), "state", s.State, "cause", s.Cause)
	case f.state == stateStopped:
		r.log.Error("remote control is " + line)
	case f.state == stateConnected && !s.Ready:
		r.log.Warn("remote control is " + line)
	default:
		r.log.Info("remote control is "+line, "server_id", f.serverID, "environment_id", f.environmentID)
	}
}

func (f *facts) status(since time.Time) pluginsdk.Status {
	s := pluginsdk.Status{State: string(f.state), Ready: f.state == stateConnected, Cause: f.cause, Remedy: f.remedy, Details: f.details(since)}
	if s.Ready && f.strictness == pluginsdk.RequireReady && f.unusable != "" {
		// the running link stays, but who asks whether peers can rely on this
		// host must hear that they soon cannot
		s.Ready, s.Cause, s.Remedy = false, f.unusable, signInRemedy
	}
	return s
}

func (f *facts) details(since time.Time) map[string]string {
	d := map[string]string{
		"since":   since.UTC().Format(time.RFC3339),
		"profile": strconv.Itoa(int(f.profile)),
		"url":     f.url,
		"clients": strconv.Itoa(f.clients),
	}
	if f.strictness != 0 {
		d["strictness"] = f.strictness.String()
	}
	if f.attempts > 0 && f.state != stateConnected {
		d["attempts"] = strconv.Itoa(f.attempts)
	}
	if !f.nextAttempt.IsZero() {
		d["next_attempt"] = f.nextAttempt.UTC().Format(time.RFC3339)
	}
	for key, value := range map[string]string{
		"route": f.route, "server_name": f.serverName, "account": pluginsdk.ShortAccount(f.account),
		"environment_id": f.environmentID, "server_id": f.serverID, "token": f.token,
		"last_error": f.lastError, "http_status": f.httpStatus, "request_id": f.requestID, "cf_ray": f.cfRay,
	} {
		if value != "" {
			d[key] = value
		}
	}
	if f.lastError != "" {
		d["last_error_at"] = f.lastErrorAt.UTC().Format(time.RFC3339)
	}
	maps.Copy(d, f.counters)
	return d
}

// failed notes the last failure. The time of one that is looked at each second
// is when it began; one that says nothing else is tried again by itself.
func (f *facts) failed(state linkState, why *failure, next time.Time) {
	if text := oneLine(why.text); text != f.lastError || why.kind != wouldBlock {
		f.lastError, f.lastErrorAt = text, time.Now()
	}
	f.state, f.cause, f.remedy, f.text, f.nextAttempt = state, why.line(), cmp.Or(why.remedy, waitRemedy), why.text, next
	f.httpStatus, f.requestID, f.cfRay = "", "", ""
	if a := why.answer; a != nil {
		f.httpStatus = a.status()
		if a.requestID != noValue {
			f.requestID = a.requestID
		}
		if a.cfRay != noValue {
			f.cfRay = a.cfRay
		}
	}
}

// passing notes a step on the way to a link. The last failure stays visible.
func (f *facts) passing(state linkState, cause string) {
	f.state, f.nextAttempt, f.remedy = state, time.Time{}, ""
	if f.text == "" {
		f.cause = cause
	}
}

// asking notes that an attempt begins. What the last one led to stays until the
// outcome is known: most attempts after a failure lead to the same.
func (f *facts) asking() {
	switch f.state {
	case stateRetrying, stateNeedsUser, stateWaitingForAuth, stateConnecting:
		return
	}
	f.passing(stateConnecting, "asking the host for credentials")
}

// settle notes a state that no failure led to.
func (f *facts) settle(state linkState, cause, remedy string) {
	f.lastError = ""
	f.state, f.cause, f.remedy, f.text, f.nextAttempt = state, cause, remedy, "", time.Time{}
	f.httpStatus, f.requestID, f.cfRay = "", "", ""
}

func (f *facts) disabled() { f.settle(stateDisabled, errDisabled.Error(), "enable it") }

// connected notes a link. The last failure stays visible until it has settled.
func (f *facts) connected() {
	last := f.lastError
	f.settle(stateConnected, "", "")
	f.lastError = last
}

// count takes over what the virtual clients have counted.
func (f *facts) count(c relayClients) { f.clients, f.counters = c.len(), c.counters() }

// enrolled shows e, or that there is none.
func (f *facts) enrolled(e *enrollment) {
	if e == nil {
		f.environmentID, f.serverID, f.token = "", "", ""
		return
	}
	f.environmentID, f.serverID, f.serverName, f.account = e.environmentID, e.serverID, e.serverName, e.accountID
	switch {
	case f.profile == profile3 && e.token != "":
		f.token = "server token"
	case f.profile == profile3 && e.tokenless:
		f.token = "account token: the backend gives no server token"
	case f.profile == profile3:
		f.token = "" // none yet: it is asked for one before it connects
	default:
		f.token = "account token"
	}
}
