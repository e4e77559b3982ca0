package host

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host/application"
)

func TestNewHasAllComplaints(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"nothing", Config{}, "Application has 0 of Handler, Command, Dial and Echo, want one\n" +
			"no transport configured; use --listen or a transport block"},
		{"much", Config{
			Application: Application{Echo: true, Command: application.Command{Args: []string{"x"}}},
			Transports:  []Transport{{}, {Name: "stdio"}, {Name: "stdio"}, {Name: "web"}},
			Admin:       true, MaxConnections: -1, MaxMessageBytes: -1, SlowAfter: -time.Second, DrainTimeout: -1,
			Restart: RestartPolicy{Min: 1, Max: 1},
		}, `Application has 2 of Handler, Command, Dial and Echo, want one
the option Admin needs RuntimeDir: that is where its socket is looked for
a transport has no name
transport "stdio" needs Stdin and Stdout
two transports are called "stdio"
two transports use the plugin stdio; there is one stdin
transport "stdio" needs Stdin and Stdout
SlowAfter is -1s, want 0 or more
DrainTimeout is -1ns, want 0 or more
the restart policy: the ResetAfter is 0s, want more than 0: no uptime at all would forget every failure
MaxConnections is -1, want 0 or more
MaxMessageBytes is -1, want 1 or more`},
		{"probes that end healthy plugins", Config{
			Application: Application{Echo: true}, Transports: []Transport{{Name: "web"}}, ProbeInterval: 20 * time.Second,
		}, "ProbeTimeout is 15s, want more than ProbeInterval, which is 20s"},
		{"all disabled", Config{
			Application: Application{Echo: true}, AdminListen: "127.0.0.1:0",
			Transports: []Transport{{Name: "a", Disabled: true}, {Name: "stdio", Disabled: true}},
		}, "the option AdminListen needs Admin\nevery transport is disabled"},
		{"the way to the token endpoint", Config{
			Application: Application{Echo: true}, Transports: []Transport{{Name: "web"}},
			Credentials: Credentials{TokenURL: "http://u:passw0rd@a.example/t", Proxy: "u:passw0rd@p.example", CAFile: "config_test.go"},
		}, `the address where tokens are refreshed is "http://u:xxxxx@a.example/t"; want https://HOST/PATH, or http:// to this machine
the proxy of the credentials is not the address of one; write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ if the proxy wants them, or "direct"
the credentials: ca_file "config_test.go" holds no PEM certificate`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.cfg)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// TestFlagsAndFileAreTheSame: what stands in a file makes the same host as the
// flags that stand for it.
func TestFlagsAndFileAreTheSame(t *testing.T) {
	f, err := ConfigFromFlags(Flags{Command: []string{os.Args[0]}, Mode: "shared", Listen: []string{"ws://127.0.0.1:4500", "stdio://"}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := f.HostConfig()
	cfg.Stdin, cfg.Stdout = strings.NewReader(""), &strings.Builder{}
	if _, err := New(cfg); err != nil {
		t.Fatal(err)
	}
	if !cfg.Application.Shared || cfg.Application.Echo || len(cfg.Application.Command.Args) != 1 || len(cfg.Transports) != 2 ||
		cfg.Transports[0].Plugin != "stdio" || cfg.Transports[1].Listen[0] != "ws://127.0.0.1:4500" || f.AdminListen() != "" {
		t.Errorf("got %+v", cfg)
	}
}
