package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// fuzz runs every fuzz test of the module, one after the other.
func (s shop) fuzz(ctx context.Context, args []string) error {
	length := 10 * time.Second
	if len(args) > 0 {
		var err error
		if length, err = time.ParseDuration(args[0]); err != nil || len(args) > 1 {
			return fmt.Errorf("fuzz takes one duration, such as 30s, not %q", strings.Join(args, " "))
		}
	}
	// One line per package with fuzz tests, and none for the many without.
	list, err := s.read(ctx, "go", "list", "-f",
		"{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./...")
	if err != nil {
		return err
	}
	var all []step
	for _, pkg := range strings.Fields(list) {
		tests, err := s.read(ctx, "go", "test", "-list", "^Fuzz", pkg)
		if err != nil {
			return err
		}
		for line := range strings.Lines(tests) {
			name := strings.TrimSpace(line)
			if !strings.HasPrefix(name, "Fuzz") {
				continue
			}
			all = append(all, step{pkg + " " + name, func(ctx context.Context) error {
				return s.do(ctx, nil, "go", "test", "-run=^$", "-fuzz=^"+name+"$", "-fuzztime="+length.String(), pkg)
			}})
		}
	}
	return s.steps(ctx, all)
}
