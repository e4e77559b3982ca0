package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"transporthost":           func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		"transport-remotecontrol": func() { os.Exit(pluginsdk.Main(&remotePlugin{look: make(chan struct{}, 1)})) },
		"transport-local":         func() { os.Exit(pluginsdk.Main(localPlugin{})) },
	})
}

// TestScripts runs the command as people do. $WORK/plugins has two plugins, $RT
// is a runtime directory with a short name.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: setUp, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"eventually": eventually,
	}})
}

func setUp(e *testscript.Env) error {
	rt, err := os.MkdirTemp("", "th")
	if err != nil {
		return err
	}
	e.Defer(func() { _ = os.RemoveAll(rt) })
	e.Setenv("RT", rt)
	exe, err := os.Executable()
	if err != nil || runtime.GOOS == "windows" {
		return err
	}
	plugins := filepath.Join(e.WorkDir, "plugins")
	if err := os.Mkdir(plugins, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"transport-remotecontrol", "transport-local"} {
		if err := hardCopy(exe, filepath.Join(plugins, name)); err != nil {
			return err
		}
	}
	return nil
}

// hardCopy makes to another name of from, or a copy.
func hardCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}

// eventually runs a program until it succeeds and what it prints matches:
//
//	eventually PATTERN PROGRAM [ARGUMENT]...
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN PROGRAM [ARGUMENT]...")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("never: %v, %v", args, err)
		}
	}
}

// A localPlugin is a transport whose peers never come.
type localPlugin struct{}

func (localPlugin) Describe() pluginsdk.Description {
	return pluginsdk.Description{Name: "local", Version: "1.0.0", Locality: pluginsdk.Local}
}

func (localPlugin) Serve(ctx context.Context, h *pluginsdk.Host) error {
	h.Ready("local:here")
	<-ctx.Done()
	return nil
}

// A remotePlugin does towards the host what remote control does, and has no
// relay.
type remotePlugin struct {
	look    chan struct{} // one slot
	enabled chan bool     // one slot, the last wish
}

func (p *remotePlugin) Describe() pluginsdk.Description {
	p.enabled = make(chan bool, 1)
	return pluginsdk.Description{
		Name: "remotecontrol", Version: "1.0.0", Locality: pluginsdk.Remote,
		Config: []pluginsdk.ConfigKey{{Name: "url", Type: pluginsdk.TypeString}},
	}
}

func (p *remotePlugin) Serve(ctx context.Context, h *pluginsdk.Host) error {
	var config struct {
		URL string `json:"url"`
	}
	if err := h.DecodeConfig(&config); err != nil {
		return err
	}
	p.enabled <- h.Params().Enabled
	creds, err := h.Credentials(ctx)
	if err != nil && h.Params().AuthStrictness == pluginsdk.RequireReady {
		return fmt.Errorf("%w: %w", pluginsdk.ErrPermissionDenied, err)
	}
	h.Ready()
	for {
		on := <-p.enabled
		p.enabled <- on
		details := map[string]string{"since": "2026-04-10T10:00:00Z", "url": config.URL, "profile": "3", "weather": "fine"}
		s := pluginsdk.Status{State: "connected", Ready: true, Details: details}
		switch {
		case !on:
			s.State, s.Ready, s.Cause = "disabled", false, "remote control is disabled"
		case err != nil:
			s.State, s.Ready, s.Cause, s.Remedy = "waiting-for-auth", false, err.Error(), "sign in with ChatGPT"
			details["next_attempt"], details["attempts"] = "2026-04-10T10:00:01Z", "4"
			details["last_error"], details["http_status"], details["request_id"], details["cf_ray"] = "refused", "403", "req-7", "ray-8"
		default:
			details["server_name"], details["server_id"], details["environment_id"] = "laptop", "srv-1", "env-2"
			details["account"], details["clients"] = pluginsdk.ShortAccount(creds.AccountID), "2"
		}
		h.ReportStatus(s)
		select {
		case <-p.look:
			creds, err = h.Credentials(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *remotePlugin) lookAgain() {
	select {
	case p.look <- struct{}{}:
	default:
	}
}

func (p *remotePlugin) SetEnabled(_ context.Context, on bool) error {
	<-p.enabled
	p.enabled <- on
	p.lookAgain()
	return nil
}

func (p *remotePlugin) CredentialsChanged(context.Context, pluginsdk.CredentialsChange) error {
	p.lookAgain()
	return nil
}
