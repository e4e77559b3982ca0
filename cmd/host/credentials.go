package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func newCredentials(io streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "credentials",
		Short: "Look at the account's credentials, and read them again",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newCredentialsStatus(io), newCredentialsReload(io))
	return c
}

func newCredentialsStatus(io streams) *cobra.Command {
	var which target
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show which credentials a running host has",
		Long:  "Shows where the credentials of a running host come from, whose they are, and\nwhat is wrong with them. It prints no token and no key.\n\n" + runtimeDirHelp,
		Example: `  transporthost credentials status
  transporthost credentials status --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := which.find()
			if err != nil {
				return err
			}
			s, err := h.Credentials(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(io, s)
			}
			w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "file\t%s\n", s.File)
			for _, row := range []struct{ name, value string }{
				{"mode", string(s.Mode)}, {"account", s.Account}, {"problem", s.Problem}, {"last refresh", moment(s.LastRefresh)},
				{"refresh failed", s.LastRefreshError}, {"not saved", s.Unsaved},
			} {
				if row.value != "" {
					fmt.Fprintf(w, "%s\t%s\n", row.name, row.value)
				}
			}
			if s.Refreshing {
				fmt.Fprintln(w, "refreshing\tnow")
			}
			fmt.Fprintf(w, "loaded\t%s, generation %d\n", moment(&s.LoadedAt), s.Generation)
			return w.Flush()
		},
	}
	which.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newCredentialsReload(io streams) *cobra.Command {
	var which target
	c := &cobra.Command{
		Use:   "reload",
		Short: "Make a running host read its credentials again",
		Long: "Makes a running host read its credentials again, and tell the transports that\nuse them if they have changed. A host also does so by itself soon after the file\nhas changed, and on SIGHUP.\n\n" +
			runtimeDirHelp,
		Example: `  transporthost credentials reload`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := which.find()
			if err != nil {
				return err
			}
			changed, err := h.ReloadCredentials(c.Context())
			if err != nil {
				return fmt.Errorf("reloading the credentials: %w", err)
			}
			text := "the credentials have not changed"
			if changed {
				text = "the credentials have changed"
			}
			fmt.Fprintf(io.err, "transporthost: %s\n", text)
			return nil
		},
	}
	which.flags(c)
	return c
}

// moment is a time for people, "" for none.
func moment(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}
