package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// otherSystems are vetted too, which compiles all packages for them.
var otherSystems = []string{"darwin", "windows"}

// testSteps is everything that CI checks, cheap things first.
func (s shop) testSteps() []step {
	goVet := func(system string) step {
		return step{"vet-" + system, func(ctx context.Context) error {
			return s.do(ctx, []string{"GOOS=" + system, "CGO_ENABLED=0"}, "go", "vet", "./...")
		}}
	}
	all := []step{
		{"gofmt", s.checkFormat},
		{"vet", func(ctx context.Context) error { return s.do(ctx, nil, "go", "vet", "./...") }},
	}
	for _, system := range otherSystems {
		all = append(all, goVet(system))
	}
	all = append(all,
		step{"staticcheck", func(ctx context.Context) error {
			return s.do(ctx, nil, "go", "tool", "-modfile="+filepath.Join("tools", "tools.mod"), "staticcheck", "./...")
		}},
		step{"generated", s.checkGenerated},
	)
	all = append(all, s.buildSteps()...)
	all = append(all, step{"unit", s.unitTests}, step{"e2e", s.endToEndTests})
	if runtime.GOOS != "linux" {
		return all
	}
	// Last and alone: it compares times.
	return append(all, s.buildChaos(), s.chaosStep([]string{"-for", chaosInTest}))
}

// test does the steps that only names, or all of them.
func (s shop) test(ctx context.Context, only []string) error {
	all := s.testSteps()
	var names []string
	for _, st := range all {
		names = append(names, st.name)
	}
	for _, name := range only {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no test step %q; steps are %s", name, strings.Join(names, ", "))
		}
	}
	return s.steps(ctx, slices.DeleteFunc(all, func(st step) bool {
		return len(only) > 0 && !slices.Contains(only, st.name)
	}))
}

// checkFormat fails if gofmt would change a Go file that git knows.
func (s shop) checkFormat(ctx context.Context) error {
	list, err := s.read(ctx, "git", "ls-files", "--cached", "--others", "--exclude-standard", "*.go")
	if err != nil {
		return err
	}
	var errs []error
	for name := range strings.Lines(list) {
		name = strings.TrimSpace(name)
		source, err := os.ReadFile(filepath.Join(s.root, filepath.FromSlash(name)))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted and not yet committed
		}
		if err != nil {
			return fmt.Errorf("reading source: %w", err)
		}
		want, err := format.Source(source)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		case !bytes.Equal(source, want):
			errs = append(errs, fmt.Errorf("%s: not formatted; run gofmt -w %[1]s", name))
		}
	}
	return errors.Join(errs...)
}

// unitTests runs the tests beside the code, under the race detector where that
// can be built.
func (s shop) unitTests(ctx context.Context) error {
	packages, err := s.packages(ctx, func(path string) bool { return !strings.Contains(path+"/", "/tests/") })
	if err != nil {
		return err
	}
	args := []string{"test", "-count=1", "-shuffle=on", "-timeout=5m"}
	if s.canRace(ctx) {
		args = append(args, "-race")
	} else {
		fmt.Fprintln(s.stderr, "    no C compiler here: the tests run without the race detector")
	}
	return s.do(ctx, nil, "go", append(args, packages...)...)
}

// endToEndTests runs tests/..., one package after the other: they start real
// processes and measure time. Results are never taken from the cache, because
// go test cannot see that a program it starts has changed.
func (s shop) endToEndTests(ctx context.Context) error {
	packages, err := s.packages(ctx, func(path string) bool { return strings.Contains(path+"/", "/tests/") })
	if err != nil || len(packages) == 0 {
		return err
	}
	return s.do(ctx, nil, "go", append([]string{"test", "-count=1", "-p=1", "-timeout=18m"}, packages...)...)
}

// packages lists the import paths of the module that keep accepts.
func (s shop) packages(ctx context.Context, keep func(path string) bool) ([]string, error) {
	list, err := s.read(ctx, "go", "list", "./...")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(strings.Fields(list), func(path string) bool { return !keep(path) }), nil
}

// canRace reports whether programs can be linked with the race detector, which
// needs cgo everywhere but on darwin.
func (s shop) canRace(ctx context.Context) bool {
	list, err := s.read(ctx, "go", "env", "GOOS", "CGO_ENABLED", "CC")
	env := strings.Split(list, "\n")
	if err != nil || len(env) != 3 {
		return false
	}
	compiler := strings.Fields(env[2])
	if env[0] == "darwin" {
		return true
	}
	if strings.TrimSpace(env[1]) != "1" || len(compiler) == 0 {
		return false
	}
	_, err = exec.LookPath(compiler[0])
	return err == nil
}
