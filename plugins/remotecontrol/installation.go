package remotecontrol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// installationKey is where the id is kept that was made here.
const installationKey = "installation-id"

// maxInstallationID bounds the file: an id has 36 bytes.
const maxInstallationID = 256

// installationID returns the stable id of this installation (spec 2.9): that of
// the configured file, else of the reference's, else one that is made once. It
// asks for the host's state in every case, for a transport without state must
// not start.
func installationID(ctx context.Context, state stateCalls, configured string) (string, error) {
	kept, err := state.LoadState(ctx, installationKey)
	if err != nil && !errors.Is(err, pluginsdk.ErrNotFound) {
		return "", fmt.Errorf("loading the installation id: %w", err)
	}
	if configured != "" {
		id, err := readInstallationID(configured)
		if err != nil {
			return "", fmt.Errorf("%w: installation_id_file: %w", pluginsdk.ErrInvalidConfig, err)
		}
		return id, nil
	}
	if path := defaultInstallationFile(); path != "" {
		// somebody else's file: that it cannot be read is no reason to have no id
		if id, err := readInstallationID(path); err == nil {
			return id, nil
		}
	}
	if id, err := uuid.Parse(string(kept)); err == nil {
		return id.String(), nil
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("making an installation id: %w", err)
	}
	if err := state.SaveState(ctx, installationKey, []byte(id.String())); err != nil {
		return "", fmt.Errorf("keeping the installation id: %w", err)
	}
	return id.String(), nil
}

// defaultInstallationFile is where the reference keeps it, or "".
func defaultInstallationFile() string {
	if home := os.Getenv("CODEX_HOME"); home != "" {
		return filepath.Join(home, "installation_id")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".codex", "installation_id")
}

func readInstallationID(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInstallationID))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	id := strings.TrimSpace(string(b))
	if err := uuid.Validate(id); err != nil || len(id) != len(uuid.Nil.String()) {
		return "", fmt.Errorf("%s does not hold a UUID", path)
	}
	return id, nil // as it is written: backends may compare bytes
}
