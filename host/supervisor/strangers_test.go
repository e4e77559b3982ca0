package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// What a stranger's process says is looked at before it is used or shown.

func TestCheckDescription(t *testing.T) {
	many := make([]transport.ConfigKey, 300)
	for i := range many {
		many[i] = transport.ConfigKey{Name: fmt.Sprint("k", i), Type: transport.TypeString}
	}
	for _, tt := range []struct {
		name   string
		change func(*transport.Description)
		want   string // "": nothing is wrong
	}{
		{"good", func(*transport.Description) {}, ""},
		{"pseudo-version", func(d *transport.Description) { d.Version = "v0.0.0-20261125212131-abcdef123456+dirty" }, ""},
		{"long version", func(d *transport.Description) { d.Version = strings.Repeat("x", 129) }, "a version of 129 bytes, limit 128"},
		{"commands", func(d *transport.Description) { d.Name = "a\x1b[2J" }, `the name "a\x1b[2J", which is no line that can be printed`},
		{"lines", func(d *transport.Description) { d.Version = "1\nwebsocket ready" }, `which is no line`},
		{"no locality", func(d *transport.Description) { d.Locality = 0 }, "it says neither that it is local nor that it is remote"},
		{"other locality", func(d *transport.Description) { d.Locality = 99 }, "it says neither"},
		{"many keys", func(d *transport.Description) { d.Config = many }, "its configuration has 300 keys, limit 256"},
		{"many keys inside", func(d *transport.Description) {
			d.Config = []transport.ConfigKey{{Name: "o", Type: transport.TypeObject, Keys: many}}
		}, "its configuration has 301 keys"},
		{"odd key", func(d *transport.Description) {
			d.Config = []transport.ConfigKey{{Name: "a b", Type: transport.TypeString}}
		}, `the key "a b", want letters`},
		{"no key", func(d *transport.Description) { d.Config = []transport.ConfigKey{{Type: transport.TypeString}} }, `the key ""`},
		{"odd type", func(d *transport.Description) { d.Config = []transport.ConfigKey{{Name: "a", Type: "banana"}} }, `the key "a" of type "banana"`},
		{"twice", func(d *transport.Description) {
			d.Config = []transport.ConfigKey{{Name: "a", Type: transport.TypeBool}, {Name: "a", Type: transport.TypeBool}}
		}, `the key "a" twice`},
		{"odd help", func(d *transport.Description) {
			d.Config = []transport.ConfigKey{{Name: "a", Type: transport.TypeBool, Help: "\x07"}}
		}, `the help "\a"`},
		{"odd value", func(d *transport.Description) {
			d.Config = []transport.ConfigKey{{Name: "a", Type: transport.TypeString, Allowed: []string{"b", "\n"}}}
		}, `the allowed value "\n"`},
		{"many values", func(d *transport.Description) {
			d.Config = []transport.ConfigKey{{Name: "a", Type: transport.TypeString, Allowed: make([]string, 65)}}
		}, "65 allowed values, limit 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := transport.Description{Name: "test", Version: "1.2.3", Locality: transport.Remote, Config: []transport.ConfigKey{
				{Name: "listen", Type: transport.TypeStrings, Help: "where"},
				{Name: "auth", Type: transport.TypeObject, Keys: []transport.ConfigKey{{Name: "mode", Type: transport.TypeString, Allowed: []string{"a", "b"}}}},
			}}
			tt.change(&d)
			err := checkDescription(d)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && err.Error() != transport.Line(err.Error(), 2*maxReportText) {
				t.Errorf("%q is no line", err)
			}
		})
	}
}

func TestShownAddresses(t *testing.T) {
	in := []string{"ws://127.0.0.1:1", "\x1b[2Jws://\nx", strings.Repeat("x", 1000)}
	for range 100 {
		in = append(in, "more")
	}
	got := shownAddresses(in)
	if len(got) != maxAddresses || got[0] != in[0] || got[1] != "[2Jws://; x" || len(got[2]) != maxAddressBytes {
		t.Errorf("got %d: %q", len(got), got[:3])
	}
}

func TestOwnAddress(t *testing.T) {
	for _, tt := range []struct {
		network, address string
		own              bool
	}{
		{"unix", "/run/th/p1/plugin-dir2/plugin3", true},
		{"unix", "/run/th/p1/plugin-dir2/../other/plugin3", false},
		{"unix", "/run/th/p1/plugin-dir2/deeper/plugin3", false},
		{"unix", "/var/run/docker.sock", false},
		{"unix", "", false},
		{"tcp", "127.0.0.1:1234", true},
		{"tcp", "[::1]:1234", true},
		{"tcp", "192.0.2.1:443", false},
		{"tcp", "localhost:443", false}, // a name may be anybody's
		{"tcp", "", false},
		{"udp", "127.0.0.1:1", false},
	} {
		if err := ownAddress(tt.network, tt.address, "/run/th/p1/plugin-dir2"); (err == nil) != tt.own {
			t.Errorf("%s %q: %v, want it to be its own: %v", tt.network, tt.address, err, tt.own)
		}
	}
}

func TestWordsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		l := wordLogger{hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info, DisableTime: true}), &budget{most: 3, perSecond: 1}}
		l.Debug("not counted, for it is not logged")
		for range 100 {
			l.Info("the moon is\x1b[2J full", "why", "no\nidea")
		}
		time.Sleep(2 * time.Second)
		l.Error("again")
		want := strings.Repeat("[INFO]  the moon is [2J full: why=\"no; idea\"\n", 3) +
			"[WARN]  the plugin says more than is logged: left_out=97\n[ERROR] again\n"
		if got := log.String(); got != want {
			t.Errorf("the log says\n%s\nwant\n%s", got, want)
		}
	})
}

// A lockedLog is what a log is written to.
type lockedLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWithLink(t *testing.T) {
	linkEnd := make(chan error, 1)
	c, done := withLink(t.Context(), linkEnd)
	if err := done(); err != nil || c.Err() == nil {
		t.Errorf("of a link that lives: %v, the context ended with %v", err, c.Err())
	}
	gone := errors.New("gone")
	c, done = withLink(t.Context(), linkEnd)
	linkEnd <- gone
	<-c.Done()
	if err := done(); !errors.Is(err, gone) || !errors.Is(<-linkEnd, gone) {
		t.Errorf("of a link that has ended: %v", err)
	}
	parent, cancel := context.WithCancel(t.Context())
	cancel()
	c, done = withLink(parent, linkEnd)
	<-c.Done()
	if err := done(); err != nil {
		t.Errorf("of a context that has ended: %v", err)
	}
}

func TestHangError(t *testing.T) {
	for _, tt := range []struct {
		err  hangError
		want string
	}{
		{hangError{15*time.Second + 3*time.Millisecond, nil}, "hangs: no answer to a probe for 15s"},
		{hangError{15 * time.Second, fmt.Errorf("health check: %w", context.DeadlineExceeded)}, "hangs: no answer to a probe for 15s"},
		{hangError{300 * time.Millisecond, errors.New("health check: the plugin answers NOT_SERVING")},
			"hangs: no answer to a probe for 300ms; the last one: health check: the plugin answers NOT_SERVING"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
