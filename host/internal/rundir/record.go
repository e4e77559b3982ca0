package rundir

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/transporthost/transporthost/host/internal/lineage"
)

// recordName is the file in a directory that says whose it is.
const recordName = "run.json"

// newSuffix names it until it is whole.
const newSuffix = ".new"

// A Record says whose a directory is.
type Record struct {
	Host      lineage.Identity `json:"host"`
	Namespace string           `json:"namespace,omitempty"` // in which the host has its pid; "" where that is not told
	Run       lineage.Run      `json:"run"`                 // whose marks the processes bear
	Sockets   []string         `json:"sockets,omitempty"`   // files elsewhere
}

func (r Record) write(dir string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// Who reads it while it is written anew gets one of the two, and never a part.
	path := filepath.Join(dir, recordName)
	if err := os.WriteFile(path+newSuffix, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+newSuffix, path)
}

// read returns the record in a directory. What is not whole is none: then no
// host has used the directory yet, or an older version.
func read(dir string) (Record, bool) {
	var r Record
	text, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return r, false
	}
	err = json.Unmarshal(text, &r)
	return r, err == nil && r.Run != 0 && r.Host.PID > 0
}
