package main

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
)

// errChaosSystem is returned where /proc and the signals of the chaos run are
// not what they are on Linux.
var errChaosSystem = errors.New("the chaos run needs Linux")

// chaosSteps build everything and do the chaos run with args.
func (s shop) chaosSteps(args []string) []step {
	if runtime.GOOS != "linux" {
		return []step{{"chaos", func(context.Context) error { return errChaosSystem }}}
	}
	return append(s.buildSteps(), s.buildChaos(), s.chaosStep(args))
}

func (s shop) buildChaos() step {
	return step{"build-chaos", func(ctx context.Context) error { return s.buildOne(ctx, "tests/chaos", "bin/chaos") }}
}

func (s shop) chaosStep(args []string) step {
	return step{"chaos", func(ctx context.Context) error {
		return s.do(ctx, nil, filepath.Join(s.root, "bin", "chaos"), args...)
	}}
}

// chaosInTest is how long the chaos lasts that is part of the tests.
const chaosInTest = "3m"
