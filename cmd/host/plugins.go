package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/transporthost/transporthost/host"
)

func newPlugins(io streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "plugins",
		Short: "Look at, verify and restart plugins",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newPluginsList(io), newPluginsVerify(io), newPluginsRestart(io))
	return c
}

func newPluginsList(io streams) *cobra.Command {
	var dirs []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "Say of every file in the plugin directory whether it is a plugin",
		Long: `Says of every file in the plugin directory whether it is a plugin, its version
and what it can do, and if it is none, why. Files that may be plugins are
started and asked.`,
		Example: `  transporthost plugins list
  transporthost plugins list --plugin-dir ./bin/plugins --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := host.ListPlugins(c.Context(), dirs)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(io, list)
			}
			w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "FILE\tNAME\tVERSION\tLOCALITY\tCAPABILITIES")
			for _, p := range list {
				if p.Problem != "" {
					fmt.Fprintf(w, "%s\t-\t-\t-\tnot run: %s\n", filepath.Base(p.Path), oneLine(p.Problem))
					continue
				}
				caps := strings.Join(p.Capabilities, " ")
				if caps == "" {
					caps = "-"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", filepath.Base(p.Path), p.Name, oneLine(p.Version), p.Locality, caps)
			}
			return w.Flush()
		},
	}
	c.Flags().StringArrayVar(&dirs, "plugin-dir", nil, "`DIR` to look at; default: plugins/ beside this program; may be repeated")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newPluginsRestart(io streams) *cobra.Command {
	var which target
	c := &cobra.Command{
		Use:     "restart NAME",
		Short:   "Replace the process of one transport",
		Long:    "Replaces the process of one transport of a running host, also of one that has\nfailed, and returns when the new one is ready.\n\n" + runtimeDirHelp,
		Example: `  transporthost plugins restart websocket`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("want the name of one transport; see %s --help", c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			h, err := which.find()
			if err == nil {
				err = h.RestartPlugin(c.Context(), args[0])
			}
			if err != nil {
				return fmt.Errorf("restarting %q: %w", args[0], err)
			}
			fmt.Fprintf(io.err, "transporthost: %s is ready\n", args[0])
			return nil
		},
	}
	which.flags(c)
	return c
}
