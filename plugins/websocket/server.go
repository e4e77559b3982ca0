package websocket

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A server is the transport while it serves: its listeners' requests and its
// connections.
type server struct {
	cfg      config
	auth     *authenticator
	host     *pluginsdk.Host
	log      hclog.Logger
	upgrader websocket.Upgrader
	upgrades *rate.Limiter
	buffers  buffers
	clock    atomic.Int64   // coarse: read for every message, set by tick
	open     atomic.Int64   // connections, and upgrades under way
	draining atomic.Bool    // accepts nothing new
	work     sync.WaitGroup // goroutines of connections

	life context.Context // the server's own: it ends deliveries that wait
	die  context.CancelFunc

	mu    sync.Mutex // guards what follows
	conns map[*conn]struct{}
	ended bool // conns stays empty
}

func newServer(ctx context.Context, cfg config, auth *authenticator, host *pluginsdk.Host) *server {
	life, die := context.WithCancel(context.WithoutCancel(ctx))
	s := &server{
		life: life, die: die,
		cfg: cfg, auth: auth, host: host, log: host.Logger(),
		upgrades: rate.NewLimiter(rate.Limit(cfg.MaxUpgradesPerSecond), cfg.MaxUpgradesPerSecond),
		conns:    make(map[*conn]struct{}),
	}
	s.upgrader = websocket.Upgrader{
		HandshakeTimeout: time.Duration(cfg.HeaderTimeout),
		// Small: a message larger than this is read straight into its buffer.
		ReadBufferSize: 1 << 10,
		// Never used for data; the pool keeps one from being made per connection.
		WriteBufferPool: &sync.Pool{},
		WriteBufferSize: 1 << 10,
		CheckOrigin:     func(*http.Request) bool { return true }, // ServeHTTP did
	}
	s.clock.Store(time.Now().UnixNano())
	return s
}

// A listenerContext says on which listener a request came in.
type listenerContext struct{}

// ServeHTTP decides about one request. The order is that of spec 8.3: Origin,
// health, then what is wrong with the upgrade, then limits, then auth.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	addr, _ := r.Context().Value(listenerContext{}).(listenAddress)
	hangUp(w, r)
	if origin, ok := r.Header["Origin"]; ok && !s.originAllowed(origin) {
		s.log.Warn("rejecting websocket listener request with Origin header", "origin", clip(strings.Join(origin, ", "), maxUserAgentLen))
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if !addr.unix && !s.hostAllowed(r.Host, addr) {
		s.log.Warn("rejecting websocket listener request for another host", "host", clip(r.Host, maxUserAgentLen))
		http.Error(w, "host not allowed; add it to allowed_hosts", http.StatusForbidden)
		return
	}
	if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		s.serveHealth(w, r)
		return
	}
	if !checkUpgrade(w, r) {
		return
	}
	if s.draining.Load() {
		refuse(w, "shutting down")
		return
	}
	if !s.upgrades.Allow() {
		refuse(w, "too many connection attempts per second (max_upgrades_per_second)")
		return
	}
	if s.open.Add(1) > int64(s.cfg.MaxConnections) {
		s.open.Add(-1)
		refuse(w, "too many connections (max_connections)")
		return
	}
	identity, err := s.auth.check(r.Header.Values("Authorization"), time.Now())
	if err != nil {
		s.open.Add(-1)
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(err.Error()))
		return
	}
	ws, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil { // it has answered
		s.open.Add(-1)
		s.log.Debug("upgrading", "error", err)
		return
	}
	s.serve(ws, r, identity, addr)
}

// hangUp makes the answer to a request the last on its socket. An upgrade is
// not answered, and is none the wiser. What is left of a request's body is not
// waited for, but read for a moment: a socket that is closed over unread bytes
// is reset, and the reset may overtake the answer.
func hangUp(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	if r.ContentLength != 0 {
		// It cannot fail on a socket, and header_timeout is there if it does.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyGrace))
	}
}

// serveHealth answers a health check, which may keep its socket for the next.
func (s *server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	if r.ContentLength == 0 {
		w.Header().Del("Connection")
	}
	if r.URL.Path == "/readyz" && s.draining.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// checkUpgrade answers what is not a WebSocket upgrade.
func checkUpgrade(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "this is a websocket endpoint; want GET", http.StatusMethodNotAllowed)
	case r.ContentLength != 0:
		// Its body would be taken for frames.
		http.Error(w, "this is a websocket endpoint; want no body", http.StatusBadRequest)
	case !websocket.IsWebSocketUpgrade(r):
		w.Header().Set("Upgrade", "websocket")
		w.Header().Add("Connection", "Upgrade") // beside close
		http.Error(w, "this is a websocket endpoint; want an upgrade", http.StatusUpgradeRequired)
	case !slices.Contains(r.Header.Values("Sec-Websocket-Version"), "13"):
		w.Header().Set("Sec-Websocket-Version", "13")
		http.Error(w, "want Sec-WebSocket-Version 13", http.StatusUpgradeRequired)
	default:
		return true
	}
	return false
}

// refuse answers a peer that may come back.
func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, why, http.StatusServiceUnavailable)
}

func (s *server) originAllowed(origins []string) bool {
	for _, o := range origins {
		if !slices.ContainsFunc(s.cfg.AllowedOrigins, func(a string) bool { return strings.EqualFold(a, o) }) {
			return false
		}
	}
	return true
}

// hostAllowed stops DNS rebinding: a web page's own name that was pointed at
// this machine is in its Host header. An address cannot be rebound.
func (s *server) hostAllowed(header string, addr listenAddress) bool {
	name := hostName(header)
	if slices.ContainsFunc(s.cfg.AllowedHosts, func(a string) bool { return strings.EqualFold(a, name) || strings.EqualFold(a, header) }) {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return !addr.loopback || ip.Unmap().IsLoopback()
	}
	return strings.EqualFold(name, "localhost")
}

// serve makes a connection of an upgraded socket and returns, so that what the
// HTTP server holds for the request is freed.
func (s *server) serve(ws *websocket.Conn, r *http.Request, identity string, addr listenAddress) {
	_ = ws.NetConn().SetDeadline(time.Time{}) // those of the request: a message may take as long as it needs
	c := &conn{server: s, ws: ws}
	c.w = newWriter(ws.NetConn(), &s.buffers, &s.work, func(messages, bytes int) { c.link.Written(messages, bytes) })
	c.setHandlers()
	now := s.clock.Load()
	c.heard.Store(now)
	c.pinged.Store(now)
	remote := r.RemoteAddr
	if addr.unix {
		remote = "unix"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.ended {
		err = pluginsdk.ErrStopping
	} else {
		_, err = s.host.Open(pluginsdk.Opened{Peer: pluginsdk.Peer{
			RemoteAddr: remote, LocalAddr: addr.url, Identity: identity, UserAgent: clip(r.UserAgent(), maxUserAgentLen),
		}}, c)
	}
	if err != nil {
		s.open.Add(-1)
		_ = bare(ws.NetConn()).Close()
		return
	}
	s.conns[c] = struct{}{}
	s.work.Go(func() {
		c.read(s.life)
		s.open.Add(-1)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
}

// tick keeps the coarse clock and looks after quiet peers, until ctx ends.
func (s *server) tick(ctx context.Context) {
	every := min(time.Second, time.Duration(s.cfg.PingInterval)/4)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			s.clock.Store(now.UnixNano())
			for _, c := range s.list() {
				c.check(now.UnixNano())
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *server) list() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// endAll ends every connection and returns when their goroutines have ended.
func (s *server) endAll(reason pluginsdk.CloseReason) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	for _, c := range s.list() {
		c.end(reason)
	}
	s.die()
	s.work.Wait() // closeGrace at most
}

// httpServer serves the requests of one listener, whose sockets are in l until
// they are upgraded. An upgrade ends all of its deadlines.
func (s *server) httpServer(addr listenAddress, l *lobby) *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: time.Duration(s.cfg.HeaderTimeout),
		ReadTimeout:       time.Duration(s.cfg.HeaderTimeout), // a body is not wanted: it has no time of its own
		WriteTimeout:      time.Duration(s.cfg.HeaderTimeout), // answers are short
		IdleTimeout:       time.Duration(s.cfg.HeaderTimeout),
		ConnState:         l.track,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return context.WithValue(s.life, listenerContext{}, addr) },
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// accept serves a listener until it is closed.
func (s *server) accept(h *http.Server, l net.Listener) error {
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
