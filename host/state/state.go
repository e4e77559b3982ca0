// Package state keeps what plugins store with the host: one file, one writer,
// one bucket per plugin instance.
package state

import "github.com/transporthost/transporthost/shared/transport"

// A Store is the open file.
type Store struct{}

// Open opens, or makes, the state in dir.
func Open(dir string) (*Store, error) { return &Store{}, nil }

// Instance returns the bucket of one plugin instance.
func (s *Store) Instance(name string) *Bucket { return &Bucket{} }

// Close closes the file.
func (s *Store) Close() error { return nil }

// A Bucket is what one plugin instance has stored.
type Bucket struct{}

// Load returns the value of key, or [transport.ErrNotFound].
func (b *Bucket) Load(key string) ([]byte, error) { return nil, transport.ErrNotFound }

// Save stores value under key.
func (b *Bucket) Save(key string, value []byte) error { return nil }

// Delete removes key.
func (b *Bucket) Delete(key string) error { return nil }
