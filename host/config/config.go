// Package config reads what a host is to be from a file in HCL, or from the
// flags of a command line. It is strict: what it does not know is an error,
// with its place and what is allowed, and all errors come at once.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
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
	Supervision Supervision
	Credentials Credentials
	State       State
	Transports  []Transport
}

// Application is the block "application": exactly one of Command, Builtin and
// Dial is set.
type Application struct {
	Command   []string
	Builtin   string // "echo"
	Dial      string // an address
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

// Credentials is the block "credentials". What it does not mention is "".
type Credentials struct {
	File     string // auth.json
	TokenURL string // where tokens are refreshed
	ClientID string
	Proxy    transport.Secret // on the way there: a URL, or "direct"
	CAFile   string

	caFile hcl.Range // the place of CAFile
}

// AtCAFile gives err, which was found in the file, the place of the key ca_file.
func (c Credentials) AtCAFile(err error) Error {
	return Error{Filename: c.caFile.Filename, Line: c.caFile.Start.Line, Column: c.caFile.Start.Column, Summary: err.Error()}
}

// State is the block "state".
type State struct {
	Dir string // "": the default
}

// Limits is the block "limits".
type Limits struct {
	MaxMessageBytes int
	MaxConnections  int
	SlowAfter       time.Duration
	DrainTimeout    time.Duration
	RetireTimeout   time.Duration
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
	Grant   []Grant // nil: [DefaultGrants] of Plugin
	Sandbox Sandbox
	Range   hcl.Range // of the block's head; zero if it came from flags

	keys      []key    // the plugin's own
	addresses list     // Listen, with its places
	mistaken  []string // keys that are there, and cannot be read
	doubtful  bool     // which file would run, and how, is not clear
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

// sorted returns the errors in the order of their places.
func (e Errors) sorted() Errors {
	return slices.SortedStableFunc(slices.Values(e), func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// Also returns all errors as one [Errors] in the order of their places, or nil
// if there are none. Errors that are not of this package have no place.
func Also(errs ...error) error {
	var all Errors
	for _, err := range errs {
		if err == nil {
			continue
		}
		if known, ok := errors.AsType[Errors](err); ok {
			all = append(all, known...)
		} else if one, ok := errors.AsType[Error](err); ok {
			all = append(all, one)
		} else {
			all = append(all, Error{Summary: err.Error()})
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all.sorted()
}

// Launchable reports whether what names, pins and equips the plugin's process
// was read without a mistake. If not, it must not be started, not even to be
// asked: a pin that cannot be read is no reason to run what it was to keep out.
func (t Transport) Launchable() bool { return !t.doubtful }

// At gives err, which was found after the file was read, the place of t.
func (t Transport) At(err error) Error {
	return Error{
		Filename: t.Range.Filename, Line: t.Range.Start.Line, Column: t.Range.Start.Column,
		Summary: fmt.Sprintf("transport %q: %v", t.Name, err),
	}
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

// Load is [Parse] of the file at path. The error may also be why the file
// cannot be read.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1)) // Parse refuses the one too much
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
