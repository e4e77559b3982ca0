package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/transporthost/transporthost/host/catalog"
	"github.com/transporthost/transporthost/host/config"
	"github.com/transporthost/transporthost/host/internal/sandbox"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/rpc"
)

// A Verdict says whether a plugin may be run, and if not, why.
type Verdict struct {
	Transport string `json:"transport,omitempty"` // the instance; empty if no configuration was asked for
	Plugin    string `json:"plugin"`
	Path      string `json:"path,omitempty"`
	SHA256    string `json:"sha256,omitempty"` // of the file
	Pinned    string `json:"pinned,omitempty"` // by the configuration
	Pin       Pin    `json:"pin"`
	Version   string `json:"version,omitempty"`  // of the plugin, as it says itself
	Protocol  int    `json:"protocol,omitempty"` // version of the link that both speak
	Problem   string `json:"problem,omitempty"`
}

// OK reports whether the plugin may be run.
func (v Verdict) OK() bool { return v.Problem == "" }

// A Pin says what the configuration's checksum says about the file.
type Pin string

// The values of [Verdict.Pin].
const (
	NotPinned  Pin = "none"
	PinMatches Pin = "matches"
	PinWrong   Pin = "wrong"
)

// VerifyPlugins says of the plugin of every transport of a configuration whether
// it may be run, also of disabled ones. dirs are as in Config. What passes the
// rules for files, and its pin, is started and asked; nothing else is.
func VerifyPlugins(ctx context.Context, f *FileConfig, dirs []string) ([]Verdict, error) {
	list := []Verdict{}
	err := withProbe(ctx, dirs, func(dirs []string, opts supervisor.Options) error {
		for _, t := range f.c.Transports {
			v := Verdict{Transport: t.Name, Plugin: t.Plugin, Pinned: t.SHA256, Pin: NotPinned}
			entry, err := catalog.Find(dirs, t.Plugin)
			if v.Path = entry.Path; err != nil {
				v.Problem = err.Error()
			} else {
				v.judge(ctx, t, opts)
			}
			list = append(list, v)
		}
		return nil
	})
	return list, err
}

// VerifyPluginDirs is [VerifyPlugins] for the files that are named like plugins
// in the directories, without pins.
func VerifyPluginDirs(ctx context.Context, dirs []string) ([]Verdict, error) {
	list := []Verdict{}
	err := withEntries(ctx, dirs, func(e catalog.Entry, opts supervisor.Options) {
		if e.Name == "" {
			return
		}
		v := Verdict{Plugin: e.Name, Path: e.Path, Pin: NotPinned, Problem: e.Problem}
		if e.OK() {
			v.judge(ctx, config.Transport{}, opts)
		}
		list = append(list, v)
	})
	return list, err
}

// judge fills in what only the file itself, and the running plugin, can say.
func (v *Verdict) judge(ctx context.Context, t config.Transport, opts supervisor.Options) {
	sum, err := catalog.Sum(v.Path)
	if err != nil {
		v.Problem = err.Error()
		return
	}
	v.SHA256 = fmt.Sprintf("%x", sum)
	d, err := supervisor.Probe(ctx, supervisor.Spec{
		Path: v.Path, SHA256: v.Pinned, Env: t.Env, Sandbox: sandbox.Request{Exceptions: t.Sandbox, Named: t.Paths()},
	}, opts)
	switch {
	case errors.Is(err, catalog.ErrChecksum):
		v.Pin = PinWrong
	case v.Pinned != "":
		v.Pin = PinMatches
	}
	if err != nil {
		v.Problem = err.Error()
		return
	}
	v.Version, v.Protocol = d.Version, rpc.ProtocolVersion // Probe refuses every other one
	if d.Name != v.Plugin {
		v.Problem = fmt.Sprintf("it calls itself %q, its file %q", d.Name, v.Plugin)
	}
}
