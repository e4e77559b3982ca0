//go:build unix

package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// passed binds address as somebody else would, and returns the socket's file.
// The socket stays bound until the test ends.
func passed(t *testing.T, network, address, name string) (*os.File, net.Addr) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name), l.Addr()
}

func TestSocketIsForAddress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, tt := range []struct {
		name, network, bind string
		address             string // PORT stands for the port that was bound
		want                bool
	}{
		{"the same", "tcp4", "127.0.0.1:0", "ws://127.0.0.1:PORT", true},
		{"the same, with TLS", "tcp4", "127.0.0.1:0", "wss://127.0.0.1:PORT", true},
		{"the same, with a slash", "tcp4", "127.0.0.1:0", "ws://127.0.0.1:PORT/", true},
		{"the same, spelled as IPv6", "tcp4", "127.0.0.1:0", "ws://[::ffff:127.0.0.1]:PORT", true},
		{"another port", "tcp4", "127.0.0.1:0", "ws://127.0.0.1:1", false},
		{"any port", "tcp4", "127.0.0.1:0", "ws://127.0.0.1:0", false},
		{"more than was bound", "tcp4", "127.0.0.1:0", "ws://0.0.0.0:PORT", false},
		{"less than was bound", "tcp4", "0.0.0.0:0", "ws://127.0.0.1:PORT", false},
		{"all of IPv4", "tcp4", "0.0.0.0:0", "ws://0.0.0.0:PORT", true},
		{"all of IPv6, and IPv4 is bound", "tcp4", "0.0.0.0:0", "ws://[::]:PORT", false},
		{"all, and both are bound", "tcp", "[::]:0", "ws://[::]:PORT", true},
		{"all of IPv4, and both are bound", "tcp", "[::]:0", "ws://0.0.0.0:PORT", true},
		{"all of IPv4, and only IPv6 is bound", "tcp6", "[::]:0", "ws://0.0.0.0:PORT", false},
		{"IPv6", "tcp6", "[::1]:0", "ws://[0:0::1]:PORT", true},
		{"a name", "tcp4", "127.0.0.1:0", "ws://localhost:PORT", false},
		{"unix", "unix", path, "unix://" + path, true},
		{"another path", "unix", path, "unix://" + path + "2", false},
		{"TCP, and unix is bound", "unix", path, "ws://127.0.0.1:0", false},
		{"unix, and TCP is bound", "tcp4", "127.0.0.1:0", "unix://" + path, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.HasPrefix(tt.bind, "[") && !hasIPv6() {
				t.Skip("this system has no IPv6")
			}
			f, bound := passed(t, tt.network, tt.bind, "x.socket")
			_, port, _ := net.SplitHostPort(bound.String())
			s, err := NewSockets([]*os.File{f})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			address := strings.ReplaceAll(tt.address, "PORT", port)
			l, err := s.take(address)
			if err != nil || (l != nil) != tt.want {
				t.Errorf("for %s, with %v bound: %v, %v; want %v", address, bound, l, err, tt.want)
			}
			if l != nil {
				_ = l.Close()
			}
			if err := s.Unused([]string{"ws://127.0.0.1:1", address}); (err == nil) != tt.want {
				t.Errorf("unused by %s: %v", address, err)
			}
		})
	}
}

func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}

func TestListenersUseWhatWasPassed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	tcp, bound := passed(t, "tcp4", "127.0.0.1:0", "tcp.socket")
	file, _ := passed(t, "unix", path, "unix.socket")
	s, err := NewSockets([]*os.File{tcp, file})
	if err != nil {
		t.Fatal(err)
	}
	addresses := []string{"unix://" + path, "ws://127.0.0.1:0", "ws://" + bound.String()}
	ls := NewListeners(addresses, s)
	for round := range 2 { // what was closed is found again
		if round == 1 {
			ls = NewListeners(addresses, s)
		}
		if err := ls.Bind(t.Context()); err != nil {
			t.Fatal(err)
		}
		if urls := ls.URLs(); urls[0] != addresses[0] || urls[2] != addresses[2] || strings.HasSuffix(urls[1], ":0") {
			t.Errorf("round %d: bound %v, want %v with another port", round, urls, addresses)
		}
		peer, err := net.Dial("tcp", bound.String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := ls.list[2].l.Accept()
		if err != nil || got.RemoteAddr().String() != peer.LocalAddr().String() {
			t.Errorf("round %d: accepted %v, %v", round, got, err)
		}
		_, _ = peer.Close(), got.Close()
		if err := ls.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file of a socket that is not ours: %v", err)
	}
	if c, err := net.Dial("tcp", bound.String()); err != nil {
		t.Errorf("its owner's socket after our end: %v", err)
	} else {
		_ = c.Close()
	}
}

func TestNewSocketsRefuses(t *testing.T) {
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	l, bound := passed(t, "tcp4", "127.0.0.1:0", "one.socket")
	fd, err := unix.Dup(int(l.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	again := os.NewFile(uintptr(fd), "two.socket")
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	datagrams, err := udp.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.Dial("tcp", bound.String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	connected, err := peer.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		files []*os.File
		want  string
	}{
		{"no socket", []*os.File{pipe}, "it is no socket"},
		{"datagrams", []*os.File{datagrams}, "it is no listening stream socket; systemd passes such a one for ListenStream= with Accept=no"},
		{"a connection", []*os.File{connected}, "it is no listening stream socket"},
		{"twice", []*os.File{l, again}, `the sockets "one.socket" and "two.socket", which were passed to the host, are both bound to ` + bound.String()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSockets(tt.files)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want %q", s, err, tt.want)
			}
		})
	}
}

func TestUnusedNamesSocketAndRemedy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	tcp, bound := passed(t, "tcp4", "127.0.0.1:0", "web.socket")
	file, _ := passed(t, "unix", path, "app")
	s, err := NewSockets([]*os.File{tcp, file})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Unused(nil)
	for _, want := range []string{
		`the socket "web.socket", bound to ` + bound.String() + `, was passed to the host, and no transport listens there; put ws://` + bound.String() + " among",
		`the socket "app", bound to ` + path + `, was passed to the host, and no transport listens there; put unix://` + path + " among",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
