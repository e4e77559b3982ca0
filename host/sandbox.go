package host

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/transporthost/transporthost/host/config"
	"github.com/transporthost/transporthost/host/internal/sandbox"
)

// installationFile stands beside auth.json and holds the id that programs of
// this account share. It is no secret.
const installationFile = "installation_id"

// confinement is what the host knows of the sandbox of a transport. runtimeDir
// is this host's own.
func (h *Host) confinement(t Transport, runtimeDir string) sandbox.Request {
	r := sandbox.Request{
		Exceptions: t.Sandbox, Named: t.Paths, MaxMessageBytes: h.cfg.MaxMessageBytes,
		Protected: []string{runtimeDir, filepath.Dir(runtimeDir)},
	}
	if h.cfg.RuntimeDir == "" { // then it has no room of its own for the runs of hosts
		r.Protected = r.Protected[:1]
	}
	if r.Files == 0 && h.cfg.MaxConnections > 0 {
		// One each, and what is no connection yet.
		r.Files = uint64(h.cfg.MaxConnections) + sandbox.SpareFiles
	}
	// A place that cannot be found holds nothing.
	if file, err := place(h.cfg.Credentials.File, config.AuthFile); err == nil {
		r.Protected = append(r.Protected, file)
	}
	if dir, err := place(h.cfg.StateDir, config.StateDir); err == nil {
		r.Protected = append(r.Protected, dir)
	}
	if usual, err := config.AuthFile(os.Getenv); err == nil {
		r.Protected = append(r.Protected, usual)
		if slices.Contains(t.Grant, GrantCredentials) {
			r.Exact = append(r.Exact, filepath.Join(filepath.Dir(usual), installationFile))
		}
	}
	return r
}
