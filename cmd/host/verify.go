package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/transporthost/transporthost/host"
)

func newPluginsVerify(io streams) *cobra.Command {
	var config string
	var dirs []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Say whether the plugins may be run, and their checksums",
		Long: `Says of the plugin of every transport of a configuration, or without one of
every plugin in the plugin directory, whether the host runs it, and if not, why:
who may change its file and directory, its checksum against the pin, and
whether it speaks this host's version of the link. Only what passes the rules
for files, and its pin, is started for that. The status is 0 if all may be run.

The line sha256 = "…" pins a plugin, in its transport block.`,
		Example: `  transporthost plugins verify
  transporthost plugins verify --config /etc/transporthost/host.hcl
  transporthost plugins verify --plugin-dir ./bin/plugins --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := verifyPlugins(c.Context(), config, dirs)
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(io, list)
			} else {
				err = printVerdicts(io, list)
			}
			if err != nil {
				return err
			}
			return verdict(list)
		},
	}
	c.Flags().StringVar(&config, "config", "", "configuration `FILE` (HCL) with the transports and their pins")
	c.Flags().StringArrayVar(&dirs, "plugin-dir", nil, "`DIR` with the plugins; default: plugins/ beside this program; may be repeated")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = c.MarkFlagFilename("config", "hcl")
	_ = c.MarkFlagDirname("plugin-dir")
	return c
}

func verifyPlugins(ctx context.Context, config string, dirs []string) ([]host.Verdict, error) {
	if config == "" {
		return host.VerifyPluginDirs(ctx, dirs)
	}
	file, err := host.LoadConfig(config)
	if err != nil {
		return nil, usageError{err}
	}
	return host.VerifyPlugins(ctx, file, dirs)
}

// verdict is the error of the whole list.
func verdict(list []host.Verdict) error {
	bad := 0
	for _, v := range list {
		if !v.OK() {
			bad++
		}
	}
	switch {
	case len(list) == 0:
		return errors.New("there is no plugin to verify; see --plugin-dir")
	case bad > 0:
		return fmt.Errorf("%d of %d plugins are not run; the reasons are above", bad, len(list))
	}
	return nil
}

func printVerdicts(io streams, list []host.Verdict) error {
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	for _, v := range list {
		result := "ok"
		if !v.OK() {
			result = "NOT RUN"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", oneLine(cmp.Or(v.Transport, v.Plugin)), result, cmp.Or(oneLine(v.Path), "no file"))
		if v.Problem != "" {
			fmt.Fprintf(w, "\treason\t%s\n", oneLine(v.Problem))
		}
		if v.Version != "" || v.Protocol != 0 {
			fmt.Fprintf(w, "\tversion\t%s, link version %d\n", cmp.Or(oneLine(v.Version), "not told"), v.Protocol)
		}
		switch v.Pin {
		case host.PinMatches:
			fmt.Fprintf(w, "\tpin\tmatches\n")
		case host.PinWrong:
			fmt.Fprintf(w, "\tpin\tWRONG: pinned is %s\n", v.Pinned)
		case host.NotPinned:
			fmt.Fprintf(w, "\tpin\tnone\n")
		}
		if v.SHA256 != "" {
			fmt.Fprintf(w, "\tfile\tsha256 = %q\n", v.SHA256)
		}
	}
	return w.Flush()
}
