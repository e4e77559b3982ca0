package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/transporthost/transporthost/host"
)

func newStatus(io streams) *cobra.Command {
	var which target
	var asJSON, watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what a running host does",
		Long:  "Shows the application, the transports with their causes, and the totals of a\nrunning host.\n\n" + runtimeDirHelp,
		Example: `  transporthost status
  transporthost status --json
  transporthost status --watch`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := which.find()
			if err != nil {
				return err
			}
			for {
				s, err := h.Status(c.Context())
				if err != nil {
					return err
				}
				if asJSON {
					err = writeJSON(io, s)
				} else {
					err = printStatus(io, s)
				}
				if err != nil || !watch {
					return err
				}
				if !pause(c.Context(), time.Second) {
					return nil
				}
			}
		},
	}
	which.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&watch, "watch", false, "print again every second")
	return c
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func printStatus(io streams, s host.Status) error {
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "host\t%s\tpid %d, up %s, version %s\n", s.State, s.PID, time.Since(s.Since).Round(time.Second), s.Version)
	a := s.Application
	fmt.Fprintf(w, "application\t%s\t%s\n", a.Driver, describeApplication(s))
	if a.Cause != "" {
		fmt.Fprintf(w, "\t\tlast failure: %s\n", a.Cause)
	}
	if a.Late > 0 || a.Dropped > 0 || a.LeftOut > 0 {
		fmt.Fprintf(w, "\t\tanswers: %d late, %d to nobody; %d messages left out\n", a.Late, a.Dropped, a.LeftOut)
	}
	for _, p := range s.Plugins {
		fmt.Fprintf(w, "%s\t%s\tsince %s", p.Instance, p.State, p.Since.Format(time.TimeOnly))
		if p.PID != 0 {
			fmt.Fprintf(w, ", pid %d", p.PID)
		}
		if p.Restarts > 0 {
			fmt.Fprintf(w, ", %s", restarts(p.Restarts))
		}
		if p.Reported != nil && p.Reported.State != string(p.State) {
			fmt.Fprintf(w, ", %s", p.Reported.State)
		}
		fmt.Fprintln(w)
		for _, address := range p.Addresses {
			fmt.Fprintf(w, "\t\t%s\n", address)
		}
		if p.Sandbox != nil && p.PID != 0 {
			fmt.Fprintf(w, "\t\tsandbox: %s\n", p.Sandbox)
		}
		if p.Cause != "" {
			fmt.Fprintf(w, "\t\tcause: %s\n", p.Cause)
		}
		if p.Successor != nil {
			fmt.Fprintf(w, "\t\tsuccessor: pid %d, being started since %s\n", p.Successor.PID, p.Successor.Since.Format(time.TimeOnly))
		}
		for _, r := range p.Retiring {
			fmt.Fprintf(w, "\t\tretiring: pid %d, %d connections, until %s\n", r.PID, r.Connections, r.Until.Format(time.TimeOnly))
		}
		if p.NextAttempt != nil {
			fmt.Fprintf(w, "\t\tnext attempt: %s\n", p.NextAttempt.Format(time.TimeOnly))
		}
		if p.Remedy != "" {
			fmt.Fprintf(w, "\t\tremedy: %s\n", p.Remedy)
		}
		if c := p.Conduct; c.Last != "" {
			fmt.Fprintf(w, "\t\tit should not: %s (refused connections %d, violations %d, strays %d, unknown events %d, intrusions %d)\n",
				c.Last, c.Refused, c.Violations, c.Strays, c.Unknown, c.Intrusions)
		}
	}
	if s.Admin != "" {
		fmt.Fprintf(w, "admin\t\t%s\n", s.Admin)
	}
	n := s.Counters
	fmt.Fprintf(w, "connections\t%d\t%d opened, %d closed, %d closed as slow, %d refused\n", s.Connections, n.Opened, n.Closed, n.Slow, n.Refused)
	fmt.Fprintf(w, "messages\t\t%d received, %d sent, %d overloaded, %d invalid, %d dropped, %d in flight\n",
		n.Received, n.Sent, n.Overloaded, n.Invalid, n.Dropped, n.InFlight)
	r := s.Resources
	fmt.Fprintf(w, "resources\t\t%d goroutines, %.1f MiB of objects", r.Goroutines, float64(r.HeapBytes)/(1<<20))
	if r.OpenFiles > 0 {
		fmt.Fprintf(w, ", %d open files", r.OpenFiles)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func describeApplication(s host.Status) string {
	a := s.Application
	text := a.Command
	if a.Children > 0 || a.Command != "" {
		text += fmt.Sprintf(", %d processes", a.Children)
	}
	if a.Restarts > 0 {
		text += ", " + restarts(a.Restarts)
	}
	if text == "" {
		text = "built in"
	}
	return text
}

func restarts(n int) string {
	if n == 1 {
		return "1 restart"
	}
	return fmt.Sprintf("%d restarts", n)
}
