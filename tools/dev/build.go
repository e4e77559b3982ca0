package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// programs are what build makes besides the plugins: package folder to output.
var programs = []struct{ dir, out string }{
	{"cmd/host", "bin/transporthost"},
	{"examples/mcp-server", "bin/mcp-server"},
}

// buildSteps makes the programs and every plugins/*/cmd/transport-* that there
// is.
func (s shop) buildSteps() []step {
	return []step{{"build", func(ctx context.Context) error {
		for _, p := range programs {
			_, err := os.Stat(filepath.Join(s.root, filepath.FromSlash(p.dir)))
			if errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(s.stderr, "    no %s in this tree\n", p.dir)
				continue
			}
			if err := s.buildOne(ctx, p.dir, p.out); err != nil {
				return err
			}
		}
		mains, err := filepath.Glob(filepath.Join(s.root, "plugins", "*", "cmd", "transport-*"))
		if err != nil {
			return fmt.Errorf("listing plugins: %w", err)
		}
		for _, dir := range mains {
			rel, err := filepath.Rel(s.root, dir)
			if err != nil {
				return fmt.Errorf("naming plugin folder: %w", err)
			}
			if err := s.buildOne(ctx, filepath.ToSlash(rel), "bin/plugins/"+filepath.Base(dir)); err != nil {
				return err
			}
		}
		return nil
	}}}
}

func (s shop) buildOne(ctx context.Context, dir, out string) error {
	if runtime.GOOS == "windows" {
		out += ".exe"
	}
	return s.do(ctx, nil, "go", "build", "-o", filepath.FromSlash(out), "./"+dir)
}
