package catalog

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// ErrChecksum is returned for a plugin whose checksum is not the pinned one.
var ErrChecksum = errors.New("wrong checksum")

// ParseSum reads a SHA-256 checksum in hexadecimal.
func ParseSum(s string) ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("sha256 is %q, want %d hexadecimal digits", s, 2*len(sum))
	}
	copy(sum[:], b)
	return sum, nil
}

// Sum returns the checksum of the file at path.
func Sum(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, fmt.Errorf("reading the plugin: %w", err)
	}
	defer f.Close()
	return sumOf(f)
}

func sumOf(f *os.File) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, fmt.Errorf("reading the plugin: %w", err)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// match compares the checksums of what was read and what was pinned.
func match(path string, got, want [sha256.Size]byte) error {
	if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
		return nil
	}
	return fmt.Errorf("%w: plugin %s has the sha256 %x, but %x is pinned in the configuration; if the new file is the right one, change the pin",
		ErrChecksum, path, got, want)
}
