// Package sandbox starts plugins confined: what a transport never needs is taken
// from a process before the first instruction of its program runs.
//
// On Linux the host starts itself again (package reexec) in place of the plugin.
// That process, the shim, confines itself, says through a pipe what is enforced
// and what this kernel cannot do, and becomes the plugin by executing it. All of
// it is inherited, and nothing of it can be taken back. Elsewhere nothing is
// confined, and the report says so.
package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Exceptions are what a person says about the sandbox of one plugin. The zero
// value is the default: confined, with what its transport needs.
type Exceptions struct {
	Off       bool     // not confined at all
	Read      []string // files and directories that it may read, and execute, beside the usual ones
	Write     []string // files and directories that it may change
	Network   *bool    // sockets of its own; nil: only if the host gives it none
	Processes bool     // it may start processes
	Memory    uint64   // bytes of data; 0: DefaultMemory
	Files     uint64   // open descriptors; 0: DefaultFiles
}

// MinMemory is the least that a program in Go can start with: its heap grows in
// steps of 64 MiB of addresses.
const MinMemory = 128 << 20

// MinFiles is the least that a plugin can shake hands with.
const MinFiles = 32

// Validate says what cannot work, all of it.
func (e Exceptions) Validate() error {
	var errs []error
	if e.Memory != 0 && e.Memory < MinMemory {
		errs = append(errs, fmt.Errorf("its sandbox has %s of memory, want at least %s", Bytes(e.Memory), Bytes(MinMemory)))
	}
	if e.Files != 0 && e.Files < MinFiles {
		errs = append(errs, fmt.Errorf("its sandbox has %d files, want at least %d", e.Files, MinFiles))
	}
	for _, path := range slices.Concat(e.Read, e.Write) {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("its sandbox names the path %q, want one from the root on", path))
		}
	}
	return errors.Join(errs...)
}

// SpareFiles are descriptors beside those of connections: sockets that are no
// connections yet, the link, and what a runtime opens.
const SpareFiles = 4096

// DefaultFiles is as many connections as a host takes of all its transports,
// and some to spare.
const DefaultFiles = 65536 + SpareFiles

// DefaultMemory bounds the data of one plugin. It holds 32 messages of the
// largest size at once; 10,000 idle peers of the WebSocket transport take 90 MiB.
func DefaultMemory(maxMessageBytes int) uint64 {
	return max(2<<30, 32*uint64(max(0, maxMessageBytes)))
}

// A Report says what holds for a process. It is made by the process itself,
// before it became the plugin.
type Report struct {
	Off      bool     `json:"off,omitempty"` // as the configuration says
	Enforced []string `json:"enforced"`
	Missing  []string `json:"missing,omitempty"` // what this system cannot do, or did not
}

// String is the report in one line.
func (r Report) String() string {
	var parts []string
	switch {
	case r.Off:
		return "off, as the configuration says"
	case len(r.Enforced) == 0:
		parts = append(parts, "nothing is enforced")
	default:
		parts = append(parts, strings.Join(r.Enforced, ", "))
	}
	if len(r.Missing) > 0 {
		parts = append(parts, "not enforced: "+strings.Join(r.Missing, ", "))
	}
	return strings.Join(parts, "; ")
}

// Bytes writes a size as a person would.
func Bytes(n uint64) string {
	for _, u := range []struct {
		size uint64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
