package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A shop runs commands in the clone at root, with the streams it was given.
type shop struct {
	root           string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// A step is one thing that is done, timed and reported by name.
type step struct {
	name string
	do   func(ctx context.Context) error
}

// steps does all steps in order, prints how long each took, and stops at the
// first that fails.
func (s shop) steps(ctx context.Context, all []step) error {
	var summary strings.Builder
	began := time.Now()
	for i, st := range all {
		fmt.Fprintf(s.stderr, "==> [%d/%d] %s\n", i+1, len(all), st.name)
		start := time.Now()
		if err := st.do(ctx); err != nil {
			if ctx.Err() != nil {
				err = errors.New("interrupted")
			}
			return fmt.Errorf("step %q failed after %s: %w", st.name, seconds(start), err)
		}
		line := fmt.Sprintf("    ok  %-12s %s\n", st.name, seconds(start))
		fmt.Fprint(s.stderr, line)
		summary.WriteString(line)
	}
	if len(all) > 1 {
		fmt.Fprintf(s.stderr, "all %d steps passed in %s\n%s", len(all), seconds(began), summary.String())
	}
	return nil
}

func seconds(since time.Time) string { return fmt.Sprintf("%.1fs", time.Since(since).Seconds()) }

// command prepares a command in the root folder, with the shop's output and no
// input. env adds to the environment. When ctx ends the command is interrupted,
// and killed if it is still there 10 s later.
func (s shop) command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.root
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = s.stdout, s.stderr
	cmd.Cancel = func() error { return interrupt(cmd.Process) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// do runs a command; its error names the whole command line, so that it can be
// tried again alone.
func (s shop) do(ctx context.Context, env []string, name string, args ...string) error {
	return named(s.command(ctx, env, name, args...).Run(), env, name, args)
}

// read runs a command and returns its output without the final line end.
func (s shop) read(ctx context.Context, name string, args ...string) (string, error) {
	cmd := s.command(ctx, nil, name, args...)
	cmd.Stdout = nil
	out, err := cmd.Output()
	return strings.TrimRight(string(out), "\r\n"), named(err, nil, name, args)
}

func named(err error, env []string, name string, args []string) error {
	if err == nil {
		return nil
	}
	line := strings.Join(append(append(append([]string{}, env...), name), args...), " ")
	return fmt.Errorf("running %q: %w", line, err)
}
