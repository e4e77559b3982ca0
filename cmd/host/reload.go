package main

import (
	"context"
	"errors"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host"
)

// A reloader makes a running host what is there now: credentials, the file of
// the configuration, the plugins.
type reloader struct {
	host    *host.Host
	log     hclog.Logger
	manager *notifier
	read    func() (host.Config, error) // the configuration
}

// reload does so because of SIGHUP. What is wrong is logged, and changes
// nothing.
func (r reloader) reload(ctx context.Context) {
	defer r.manager.reloading()()
	changed, err := r.host.ReloadCredentials("SIGHUP")
	if err == nil { // else no transport uses them
		r.log.Info("credentials were read again", "signal", "SIGHUP", "changed", changed)
	}
	cfg, err := r.read()
	var done host.Reloaded
	if err == nil {
		done, err = r.host.Reload(ctx, cfg)
	}
	for _, what := range done.NeedRestart {
		r.log.Warn("a change takes effect only in another host: restart it", "changed", what)
	}
	if errors.Is(err, host.ErrStopping) {
		return
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			r.log.Error("not taken over", "error", strings.TrimSpace(line))
		}
	}
	r.log.Info("configuration and plugins were looked at again", "signal", "SIGHUP",
		"replaced", list(done.Replaced), "added", list(done.Added), "removed", list(done.Removed))
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}
