package config

import (
	"cmp"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/shared/transport"
)

// Supervision is the block "supervision": when a process counts as hung, and
// how one that ended is started again.
type Supervision struct {
	ProbeInterval time.Duration
	ProbeTimeout  time.Duration
	// Restart has the default of everything that is not mentioned; it is zero if
	// nothing is.
	Restart backoff.Policy
}

func (p *parser) supervision(b *hclsyntax.Block) Supervision {
	v := p.values(b, map[string]transport.ConfigType{
		"probe_interval": transport.TypeDuration, "probe_timeout": transport.TypeDuration,
		"restart_delay": transport.TypeDuration, "max_restart_delay": transport.TypeDuration, "healthy_after": transport.TypeDuration,
		"give_up_after": transport.TypeNumber, "give_up_within": transport.TypeDuration,
	})
	s := Supervision{ProbeInterval: v.duration("probe_interval"), ProbeTimeout: v.duration("probe_timeout")}
	for _, name := range []string{"probe_interval", "probe_timeout", "restart_delay", "max_restart_delay", "healthy_after", "give_up_within"} {
		if k, ok := v[name]; ok && v.duration(name) <= 0 {
			p.complain(k.at, "", "%s is %v, want more than 0", name, v.duration(name))
		}
	}
	if k, ok := v["give_up_after"]; ok && v.number("give_up_after") < 1 {
		p.complain(k.at, "", "give_up_after is %d, want 1 or more", v.number("give_up_after"))
	}
	if s.ProbeInterval > 0 && s.ProbeTimeout > 0 && s.ProbeTimeout <= s.ProbeInterval {
		p.complain(v["probe_timeout"].at, "a plugin is given up that did not answer for so long", "probe_timeout is %v, want more than probe_interval, which is %v", s.ProbeTimeout, s.ProbeInterval)
	}
	s.Restart = v.policy()
	if s.Restart.Min > s.Restart.Max {
		at := v["max_restart_delay"].at
		if _, ok := v["max_restart_delay"]; !ok {
			at = v["restart_delay"].at
		}
		p.complain(at, "the delay doubles from the one to the other", "restart_delay is %v, want at most max_restart_delay, which is %v", s.Restart.Min, s.Restart.Max)
	}
	return s
}

// policy is zero if no key of it is there.
func (v values) policy() backoff.Policy {
	set := backoff.Policy{
		Min: v.duration("restart_delay"), Max: v.duration("max_restart_delay"), ResetAfter: v.duration("healthy_after"),
		GiveUpAfter: v.number("give_up_after"), GiveUpWindow: v.duration("give_up_within"),
	}
	if set == (backoff.Policy{}) {
		return set
	}
	usual := backoff.Default()
	return backoff.Policy{
		Min: cmp.Or(set.Min, usual.Min), Max: cmp.Or(set.Max, usual.Max), ResetAfter: cmp.Or(set.ResetAfter, usual.ResetAfter),
		GiveUpAfter: cmp.Or(set.GiveUpAfter, usual.GiveUpAfter), GiveUpWindow: cmp.Or(set.GiveUpWindow, usual.GiveUpWindow),
	}
}
