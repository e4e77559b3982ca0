package backend

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"

	"github.com/gorilla/websocket"
)

// serveUpgrade takes the WebSocket of a host and serves it until it ends.
func (b *Backend) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	req, _, ok := b.begin(w, r, EndpointUpgrade)
	if !ok {
		return
	}
	b.mu.Lock()
	e, refusal := b.checkUpgrade(r)
	b.mu.Unlock()
	if e == nil {
		b.answer(w, req, refusal)
		return
	}
	// Hosts are no browsers: an Origin is a violation and was found above.
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	sock, err := upgrader.Upgrade(w, r, nil)
	b.mu.Lock()
	if err != nil {
		b.violate(0, problemf(BadUpgrade, "no WebSocket: %v", err)) // the upgrader has answered
		req.Status = http.StatusBadRequest
		b.mu.Unlock()
		return
	}
	req.Status = http.StatusSwitchingProtocols
	l, replaced := b.startLink(sock, e, req)
	b.mu.Unlock()
	for _, old := range replaced {
		old.drop("another link of the same server")
	}
	l.serve()
}

// checkUpgrade finds the enrollment that a WebSocket is for, or the refusal.
// b.mu is held.
func (b *Backend) checkUpgrade(r *http.Request) (*enrollment, reply) {
	var problems []problem
	complain := func(format string, args ...any) {
		problems = append(problems, problemf(BadUpgrade, format, args...))
	}
	one := func(name string) string {
		values := r.Header.Values(name)
		if len(values) != 1 || values[0] == "" {
			complain("%s is there %d times, or empty", name, len(values))
			return ""
		}
		return values[0]
	}
	none := func(name, why string) {
		if len(r.Header.Values(name)) > 0 {
			complain("%s is there, %s", name, why)
		}
	}
	serverID, name := one("x-codex-server-id"), one("x-codex-name")
	if got, want := one("x-codex-protocol-version"), fmt.Sprint(b.opts.Profile); got != want && got != "" {
		complain("x-codex-protocol-version is %q, want %q", shortened(got), want)
	}
	none("Origin", "a host is no browser")
	none("Sec-WebSocket-Protocol", "there is no subprotocol")
	none("Sec-WebSocket-Extensions", "there are no extensions")
	none("Content-Type", "there is no body")
	if bearer(r) == "" {
		complain("authorization has no bearer")
	}
	serverToken := b.opts.Profile == Profile3 && !b.opts.NoServerToken
	if serverToken {
		none("chatgpt-account-id", "with a server token")
	} else {
		one("chatgpt-account-id")
	}
	if b.opts.Profile == Profile3 {
		if got := one("x-codex-installation-id"); got != "" && !uuidPattern.MatchString(got) {
			complain("x-codex-installation-id is no UUID")
		}
	} else {
		none("x-codex-installation-id", "in profile 2")
	}
	if cursor := r.Header.Values("x-codex-subscribe-cursor"); len(cursor) > 1 || len(cursor) == 1 && cursor[0] == "" {
		complain("x-codex-subscribe-cursor is there %d times, or empty", len(cursor))
	}
	broken := len(problems) > 0
	e := b.enrolled(serverID)
	if decoded, err := base64.StdEncoding.Strict().DecodeString(name); err != nil {
		complain("x-codex-name is no padded standard base64")
	} else if e != nil && e.Name != "" && e.Name != string(decoded) {
		complain("x-codex-name is not the name of the enrollment")
	}
	if id := r.Header.Get("x-codex-installation-id"); e != nil && e.InstallationID != "" && id != "" && id != e.InstallationID {
		complain("x-codex-installation-id is not that of the enrollment")
	}
	b.violate(0, problems...)
	if broken {
		return nil, detailReply(http.StatusBadRequest, "wrong headers")
	}
	return b.admitUpgrade(r, e, serverToken)
}

// admitUpgrade checks the token of a WebSocket. Whose account is unknown
// learns nothing of servers.
func (b *Backend) admitUpgrade(r *http.Request, e *enrollment, serverToken bool) (*enrollment, reply) {
	gone := detailReply(http.StatusNotFound, "Not Found")
	if b.opts.Profile == Profile3 {
		gone = detailReply(http.StatusNotFound, goneDetail)
	}
	if serverToken {
		switch {
		case e == nil:
			return nil, gone
		case bearer(r) != e.token(b.now()):
			return nil, detailReply(http.StatusUnauthorized, "Unauthorized")
		}
		return e, reply{}
	}
	a, refused := b.authorize(r)
	switch {
	case refused != "":
		return nil, detailReply(http.StatusUnauthorized, refused)
	case e == nil || e.AccountID != a.ID:
		return nil, gone
	}
	return e, reply{}
}

// startLink makes the link of a WebSocket and says which ones it takes the
// place of. b.mu is held.
func (b *Backend) startLink(sock *websocket.Conn, e *enrollment, req *Request) (l *link, replaced []*link) {
	c := &Connect{N: len(b.connects) + 1, At: req.At, ServerID: e.ServerID, AccountID: e.AccountID,
		Cursor: req.Header.Get("x-codex-subscribe-cursor"), Header: req.Header, Bearer: req.Bearer}
	l = &link{b: b, sock: sock, server: e.ServerID, connect: c, wake: make(chan struct{}, 1), done: make(chan struct{}),
		last: map[streamKey]frontier{}}
	var cursor uint64
	if c.Cursor != "" {
		var err error
		if cursor, err = b.parseCursor(c.Cursor); err != nil {
			b.violate(c.N, problemf(BadCursor, "%v", err))
		}
	}
	l.sentUpTo = cursor
	for _, old := range b.links {
		if old.server == l.server {
			replaced = append(replaced, old)
		}
	}
	b.links = slices.DeleteFunc(b.links, func(old *link) bool { return slices.Contains(replaced, old) })
	b.links = append(b.links, l)
	b.connects = append(b.connects, c)
	if cursor < b.ledger.lost {
		c.Lost = true
		b.log.Warn("a host comes for messages that are no longer kept", "link", c.N)
	}
	l.resend = b.ledger.confirm(cursor, l.serves)
	b.log.Info("connected", "link", c.N, "server", c.ServerID, "cursor", c.Cursor, "resend", len(l.resend))
	b.notify()
	if b.closed {
		replaced = append(replaced, l) // Close has seen the links without it
	}
	return l, replaced
}
