// Package lineage knows which processes descend from a run of a host, whatever
// became of their parents, their sessions and their groups.
//
// Every child gets a mark, and its descendants inherit it, twice. One is a
// variable of the environment. But what programs start, they often start with an
// environment of their own making: codex and the SDKs of MCP do so with MCP
// servers. The other is therefore a resource limit that Linux keeps for every
// process, passes on through fork and exec, and has not enforced since 2.4.25:
// that on file locks. Its soft value is the mark.
package lineage

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Variable holds the marks of a process, separated by commas. There are several
// if a host runs below another.
const Variable = "TRANSPORTHOST_RUN"

// maxOuter bounds the marks that are taken over from above.
const maxOuter = 4 << 10

// A Run names one run of a host. The zero value names none, and nothing bears
// its marks.
type Run uint64

// NewRun makes a name that no other run has.
func NewRun() Run {
	for {
		if r := Run(rand.Uint64()); r != 0 {
			return r
		}
	}
}

// ParseRun reads what String wrote.
func ParseRun(s string) (Run, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || n == 0 || len(s) != 16 {
		return 0, fmt.Errorf("%q does not name a run of a host", s)
	}
	return Run(n), nil
}

func (r Run) String() string { return fmt.Sprintf("%016x", uint64(r)) }

// MarshalText implements [encoding.TextMarshaler].
func (r Run) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *Run) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRun(string(b))
	return err
}

// A Mark is what one child of a run and its descendants have in common.
type Mark struct {
	Run   Run
	Child uint32
}

func (m Mark) String() string { return fmt.Sprintf("%v.%d", m.Run, m.Child) }

// limit is the mark as a resource limit: no value that anybody else would set,
// and less than what Linux takes for unlimited.
func (m Mark) limit() uint64 { return m.Run.prefix()<<32 | uint64(m.Child) }

// isMark reports whether limit returned it, for whatever mark.
func isMark(limit uint64) bool { return limit>>62 == 1 }

// prefix is the upper half of the limits of a run's marks. Another run has the
// same one once in a billion; what is ended is looked at twice.
func (r Run) prefix() uint64 { return uint64(r)&(1<<30-1) | 1<<30 }

// Environ returns env with the mark in it, beside those that this process bears
// itself.
func (m Mark) Environ(env []string) []string {
	return environ(env, m, os.Getenv(Variable))
}

func environ(env []string, m Mark, outer string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, Variable+"=") })
	value := m.String()
	if outer != "" && len(outer) <= maxOuter {
		value = outer + "," + value
	}
	return append(env, Variable+"="+value)
}

// Child returns which child of the run an environment was made for by
// [Mark.Environ].
func (r Run) Child(env []string) (child uint32, ok bool) {
	child, ok, _ = childIn(strings.Join(env, "\x00"), r)
	return child, ok
}

// childIn finds the mark of run r in an environment, as the kernel shows it.
// marked says whether there are marks at all.
func childIn(environ string, r Run) (child uint32, ok, marked bool) {
	for kv := range strings.SplitSeq(environ, "\x00") {
		value, found := strings.CutPrefix(kv, Variable+"=")
		if !found {
			continue
		}
		for text := range strings.SplitSeq(value, ",") {
			run, n, _ := strings.Cut(text, ".")
			name, err := ParseRun(run)
			if err != nil {
				continue
			}
			marked = true
			if c, err := strconv.ParseUint(n, 10, 32); err == nil && name == r {
				return uint32(c), true, true
			}
		}
	}
	return 0, false, marked
}
