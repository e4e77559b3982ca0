// Package config reads what a host is to be from a file in HCL, or from the
// flags of a command line. It is strict: what it does not know is an error,
// with its place and what is allowed, and all errors come at once.
package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/transporthost/transporthost/shared/transport"
)

// A Config is what the file says. Sizes and durations that it does not mention
// are 0.
type Config struct {
	Application Application
	Admin       Admin
	Limits      Limits
	Transports  []Transport
}

// Application is the block "application": exactly one of Command and Builtin is
// set.
type Application struct {
	Command   []string
	Builtin   string // "echo"
	Mode      string // ModePerConnection or ModeShared
	Framing   transport.Framing
	Env       map[string]string
	Dir       string
	StopGrace time.Duration
}

// The values of Application.Mode.
const (
	ModePerConnection = "per-connection"
	ModeShared        = "shared"
)

// BuiltinEcho is the one built-in application.
const BuiltinEcho = "echo"

// Admin is the block "admin".
type Admin struct {
	Listen string // HOST:PORT for health checks; empty: none
}

// Limits is the block "limits".
type Limits struct {
	MaxMessageBytes int
	SlowAfter       time.Duration
	DrainTimeout    time.Duration
}

// Transport is a block "transport". The plugin's own keys are checked by
// [Transport.PluginConfig], once the plugin has said what they are.
type Transport struct {
	Name    string
	Plugin  string
	Listen  []string
	SHA256  string
	Env     map[string]string
	Enabled bool
	Range   hcl.Range // of the block's head; zero if it came from flags

	keys []key // the plugin's own
}

// An Error is one mistake and where it is.
type Error struct {
	Filename     string
	Line, Column int
	Summary      string
	Detail       string // what is allowed, or what to do; may be empty
}

func (e Error) Error() string {
	text := e.Summary
	if e.Detail != "" {
		text += "; " + e.Detail
	}
	if e.Filename == "" {
		return text
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.Filename, e.Line, e.Column, text)
}

// Errors are all mistakes of a file, in its order.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Framing returns the framing that transport t uses if it is the terminal's.
func (t Transport) Framing() transport.Framing {
	for _, k := range t.keys {
		if k.name == "framing" {
			if s, ok := k.value.(string); ok {
				return transport.Framing(s)
			}
		}
	}
	return transport.NDJSON
}

// Load reads the file at path. The error is an [Errors], or why the file cannot
// be read.
func Load(path string) (*Config, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, src)
}

// expandHome replaces a leading ~/ by the user's home directory.
func expandHome(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return filepath.Join(home, rest)
}

// didYouMean suggests the closest of the allowed names, if one is close.
func didYouMean(name string, allowed []string) string {
	best, distance := "", 3
	for _, a := range allowed {
		if d := editDistance(name, a); d < distance {
			best, distance = a, d
		}
	}
	sorted := slices.Sorted(slices.Values(allowed))
	list := "allowed are " + strings.Join(sorted, ", ")
	if best == "" {
		return list
	}
	return fmt.Sprintf("did you mean %q? %s", best, list)
}

// editDistance is Levenshtein's, of short names.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
