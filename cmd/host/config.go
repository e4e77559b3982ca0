package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/transporthost/transporthost/host"
)

func newConfig(io streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var dirs []string
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Say everything that is wrong with a configuration file",
		Long: `Says everything that is wrong with a configuration file, with its place. The
plugins that it names are started, and asked which keys they know; nothing is
served.`,
		Example: `  transporthost config check /etc/transporthost/host.hcl`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("want one FILE; see %s --help", c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := host.CheckConfig(c.Context(), args[0], dirs); err != nil {
				return usageError{err}
			}
			fmt.Fprintf(io.out, "%s: ok\n", args[0])
			return nil
		},
	}
	check.Flags().StringArrayVar(&dirs, "plugin-dir", nil, "`DIR` with the plugins; default: plugins/ beside this program; may be repeated")
	c.AddCommand(check)
	return c
}

func newVersion(io streams) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: `  transporthost version`,
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(io.out, host.VersionLine())
			return err
		},
	}
}
