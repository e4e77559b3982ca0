package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
)

func newRemote(io streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "remote",
		Short: "Look at remote control, and switch it on and off",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newRemoteStatus(io), newRemoteSwitch(io, true), newRemoteSwitch(io, false))
	return c
}

// atMostOneName refuses more than one argument, as wrong use.
func atMostOneName(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError{fmt.Errorf("want at most one NAME; see %s --help", c.CommandPath())}
	}
	return nil
}

func nameOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// remoteNames completes the names of a running host's remote transports.
func (t *target) remoteNames(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if h, err := t.find(); err == nil && len(args) == 0 {
		if s, err := h.Status(c.Context()); err == nil {
			for _, p := range s.Remote() {
				names = append(names, p.Instance)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newRemoteStatus(io streams) *cobra.Command {
	var which target
	var asJSON bool
	c := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show how far remote control is, and why",
		Long: "Shows the state of the remote transports of a running host, or of one: since\nwhen, why, what the other side said, when the next attempt is, and what you can\ndo.\n\n" +
			runtimeDirHelp,
		Example: `  transporthost remote status
  transporthost remote status phone --json`,
		Args: atMostOneName, ValidArgsFunction: which.remoteNames,
		RunE: func(c *cobra.Command, args []string) error {
			h, err := which.find()
			if err != nil {
				return err
			}
			s, err := h.Status(c.Context())
			if err != nil {
				return err
			}
			shown := s.Remote()
			if len(args) > 0 || len(shown) == 0 {
				one, err := s.Transport(nameOf(args))
				if err != nil {
					return err
				}
				shown = []host.TransportStatus{one}
			}
			if asJSON {
				return writeJSON(io, shown)
			}
			return printRemote(io.out, shown, time.Now())
		},
	}
	which.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newRemoteSwitch(io streams, on bool) *cobra.Command {
	verb, done := "disable", "off"
	long := `Switches a remote transport of a running host off: its link is closed, and it
connects to nothing until it is enabled again; then its peers go on where they
were. Its process remains; if that is replaced, the next one begins switched off
too. The host itself does not remember it.`
	if on {
		verb, done = "enable", "on"
		long = `Switches a remote transport of a running host on. A transport that the
configuration disables (enabled = false) gets its process and sockets now, and
the command returns when it is ready, or says why it is not.`
	}
	var which target
	c := &cobra.Command{
		Use:     verb + " [NAME]",
		Short:   "Switch remote control " + done,
		Long:    long + " NAME may be left out if there is one.\n\n" + runtimeDirHelp,
		Example: fmt.Sprintf("  transporthost remote %s\n  transporthost remote %s phone", verb, verb),
		Args:    atMostOneName, ValidArgsFunction: which.remoteNames,
		RunE: func(c *cobra.Command, args []string) error {
			h, err := which.find()
			if err != nil {
				return err
			}
			s, err := h.Status(c.Context())
			if err != nil {
				return err
			}
			t, err := s.Transport(nameOf(args))
			if err != nil {
				return err
			}
			if err := h.SetTransportEnabled(c.Context(), t.Instance, on); err != nil {
				return fmt.Errorf("switching %q %s: %w", t.Instance, done, err)
			}
			fmt.Fprintf(io.err, "transporthost: %s is %s\n", t.Instance, done)
			return nil
		},
	}
	which.flags(c)
	return c
}

// printRemote prints what remote transports say of themselves: first how they
// are and what to do, then who they are.
func printRemote(out io.Writer, all []host.TransportStatus, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, t := range all {
		r := report{w: w, left: map[string]string{}}
		state, since := string(t.State), t.Since.Local().Format(time.TimeOnly)
		if t.Reported != nil && t.PID != 0 {
			r.left = maps.Clone(t.Reported.Details)
			text := r.take("since")
			if t.State != supervisor.Disabled { // it may not have said so yet
				state = t.Reported.State
			}
			if text != "" && state == t.Reported.State {
				since = clock(text, now)
			}
		}
		fmt.Fprintf(w, "%s\t%s\tsince %s\n", t.Instance, state, since)
		r.row("cause", t.Cause)
		r.row("remedy", t.Remedy)
		next := clock(r.take("next_attempt"), now)
		if t.NextAttempt != nil {
			next = clock(t.NextAttempt.Format(time.RFC3339Nano), now)
		}
		attempts := r.take("attempts")
		if next != "" {
			r.row("next attempt", join(next, label("after attempt ", attempts)))
		}
		r.row("last error", r.take("last_error"))
		r.row("answer", join(label("HTTP ", r.take("http_status")), label("request id ", r.take("request_id")), label("cf-ray ", r.take("cf_ray"))))
		r.row("server", join(r.take("server_name"), label("id ", r.take("server_id"))))
		r.row("environment", r.take("environment_id"))
		r.row("account", r.take("account"))
		r.row("relay", join(r.take("url"), label("profile ", r.take("profile")), r.take("route")))
		r.row("clients", r.take("clients"))
		r.row("token", r.take("token"))
		for _, name := range slices.Sorted(maps.Keys(r.left)) { // of another transport, or a newer one
			r.row(strings.ReplaceAll(name, "_", " "), r.left[name])
		}
	}
	return w.Flush()
}

// A report is the rows of one transport.
type report struct {
	w    io.Writer
	left map[string]string // details that are not shown yet
}

func (r *report) take(name string) string {
	v := r.left[name]
	delete(r.left, name)
	return v
}

func (r *report) row(name, value string) {
	if value != "" {
		fmt.Fprintf(r.w, "\t%s\t%s\n", name, value)
	}
}

// label puts a word before a value that is there.
func label(word, value string) string {
	if value == "" {
		return ""
	}
	return word + value
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

// clock is a time of day for people, with how far it is from now. What is no
// time stays as it is.
func clock(text string, now time.Time) string {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return text
	}
	d := t.Sub(now).Round(time.Second)
	switch {
	case d > 0:
		return fmt.Sprintf("%s (in %s)", t.Local().Format(time.TimeOnly), d)
	case d < 0:
		return fmt.Sprintf("%s (%s ago)", t.Local().Format(time.TimeOnly), -d)
	}
	return t.Local().Format(time.TimeOnly)
}
