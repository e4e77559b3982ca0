package config

import (
	"reflect"
	"testing"

	"github.com/transporthost/transporthost/shared/transport"
)

func TestFromFlags(t *testing.T) {
	c, err := FromFlags(Flags{
		Listen:  []string{"ws://127.0.0.1:1", "stdio://", "unix:///x"},
		Command: []string{"cat"}, Mode: ModeShared, Framing: "content-length",
		Remote: true, RemoteURL: "http://127.0.0.1:9/", AuthFile: "/a/auth.json", StateDir: "/s",
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Application; !reflect.DeepEqual(a.Command, []string{"cat"}) || a.Mode != ModeShared || a.Framing != transport.ContentLength {
		t.Errorf("application: got %+v", a)
	}
	if len(c.Transports) != 3 {
		t.Fatalf("got %d transports, want stdio, websocket and remotecontrol: %+v", len(c.Transports), c.Transports)
	}
	if s := c.Transports[0]; s.Plugin != "stdio" || !s.Enabled || s.Framing() != transport.ContentLength {
		t.Errorf("stdio: got %+v; its framing is the application's", s)
	}
	if w := c.Transports[1]; w.Plugin != "websocket" || !w.Enabled || !reflect.DeepEqual(w.Listen, []string{"ws://127.0.0.1:1", "unix:///x"}) {
		t.Errorf("websocket: got %+v; it has all addresses", w)
	}
	if r := c.Transports[2]; r.Plugin != "remotecontrol" || !r.Enabled {
		t.Errorf("remotecontrol: got %+v", r)
	}
	d := transport.Description{Config: []transport.ConfigKey{{Name: "url", Type: transport.TypeString}}}
	if got, err := c.Transports[2].PluginConfig(d); err != nil || string(got) != `{"url":"http://127.0.0.1:9/"}` {
		t.Errorf("configuration of remotecontrol: got %s, %v", got, err)
	}
	if c.Credentials.File != "/a/auth.json" || c.State.Dir != "/s" {
		t.Errorf("got %+v and %+v", c.Credentials, c.State)
	}
}

func TestFromFlagsListensOnStdioIfNotTold(t *testing.T) {
	c, err := FromFlags(Flags{Builtin: BuiltinEcho})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Transports) != 1 || c.Transports[0].Plugin != "stdio" || c.Transports[0].Framing() != transport.NDJSON {
		t.Errorf("got %+v, want stdio", c.Transports)
	}
}

// TestFromFlagsWithRemoteControlOnly: no transport of this machine.
func TestFromFlagsWithRemoteControlOnly(t *testing.T) {
	c, err := FromFlags(Flags{Builtin: BuiltinEcho, Listen: []string{"off"}, Remote: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Transports) != 1 || c.Transports[0].Plugin != "remotecontrol" {
		t.Errorf("got %+v, want remotecontrol", c.Transports)
	}
}

func TestMistakesInFlags(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags Flags
		want  string
	}{
		{"no application", Flags{}, "no application; give a program behind --, or --builtin echo, or --config FILE"},
		{"two applications", Flags{Builtin: "echo", Command: []string{"x"}}, "--builtin and a program behind -- exclude each other"},
		{"listen", Flags{Builtin: "echo", Listen: []string{"tcp://x", "ws://localhost:1"}},
			"unsupported --listen URL `tcp://x`; expected `stdio://`, `off`, `ws://IP:PORT`, `wss://IP:PORT` or `unix:///PATH`\n" +
				"invalid websocket --listen URL `ws://localhost:1`; expected `ws://IP:PORT`; write ws://127.0.0.1:1"},
		{"twice", Flags{Builtin: "echo", Listen: []string{"ws://127.0.0.1:1", "ws://127.0.0.1:1"}}, "--listen ws://127.0.0.1:1 is there twice"},
		{"built in with a command's flags", Flags{Builtin: "echo", Mode: ModeShared, Framing: "ndjson"},
			"--mode is of a program; a built-in application has none"},
		{"nothing to serve", Flags{Builtin: "echo", Listen: []string{"off"}}, "no transport configured; use --listen or enable remote control"},
		{"off and on", Flags{Builtin: "echo", Listen: []string{"off", "stdio://"}, Remote: true}, "--listen off and other addresses exclude each other"},
		{"of remote control", Flags{Builtin: "echo", RemoteURL: "u", AuthFile: "a", StateDir: "s"},
			"--remote-url is of remote control; add --remote\n--auth-file is of remote control; add --remote\n--state-dir is of remote control; add --remote"},
		{"all at once", Flags{Builtin: "ecko", Mode: "both", Framing: "xml"},
			`--builtin is "ecko", want echo` + "\n" + `--mode is "both", want per-connection or shared` + "\n" + `--framing is "xml", want ndjson or content-length`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := FromFlags(tt.flags)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}
