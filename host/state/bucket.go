package state

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/transporthost/transporthost/shared/transport"
)

// Bounds of what one plugin instance may store. An enrollment has some hundred
// bytes, and there is one per backend, account and client.
const (
	// MaxKeyBytes bounds one key.
	MaxKeyBytes = 1 << 10
	// MaxKeys bounds their number.
	MaxKeys = 1024
	// MaxBytes bounds keys and values together.
	MaxBytes = 8 << 20
)

// A Bucket is what one plugin instance has stored. Its methods may be called
// from any goroutine; they return when the change is on the disk.
type Bucket struct {
	db   *bbolt.DB
	name string
}

// Load returns a copy of the value of key, or [transport.ErrNotFound].
func (b *Bucket) Load(key string) ([]byte, error) {
	var value []byte
	err := b.db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(b.name))
		if bucket == nil {
			return transport.ErrNotFound
		}
		v := bucket.Get([]byte(key))
		if v == nil {
			return transport.ErrNotFound
		}
		value = append([]byte{}, v...) // v is the file's, and only until here
		return nil
	})
	return value, b.explain("loading", err)
}

// Save stores value under key. It returns [transport.ErrTooLarge] if key, value
// or the whole of the instance would be over its bound; nothing is stored then.
func (b *Bucket) Save(key string, value []byte) error {
	switch {
	case key == "":
		return b.explain("saving", errors.New("the key is empty"))
	case len(key) > MaxKeyBytes:
		return b.explain("saving", fmt.Errorf("a key of %d bytes, limit %d: %w", len(key), MaxKeyBytes, transport.ErrTooLarge))
	case len(value) > transport.MaxStateBytes:
		return b.explain("saving", fmt.Errorf("a value of %d bytes, limit %d: %w", len(value), transport.MaxStateBytes, transport.ErrTooLarge))
	}
	if b.has(key, value) {
		return nil // a plugin that saves what is there costs no write to the disk
	}
	return b.explain("saving", b.db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists([]byte(b.name))
		if err != nil {
			return err
		}
		keys, size := 1, len(key)+len(value)
		err = bucket.ForEach(func(k, v []byte) error {
			if string(k) != key {
				keys++
				size += len(k) + len(v)
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case keys > MaxKeys:
			return fmt.Errorf("%d keys, limit %d: %w", keys, MaxKeys, transport.ErrTooLarge)
		case size > MaxBytes:
			return fmt.Errorf("%d bytes in all, limit %d: %w", size, MaxBytes, transport.ErrTooLarge)
		}
		return bucket.Put([]byte(key), value)
	}))
}

func (b *Bucket) has(key string, value []byte) bool {
	same := false
	_ = b.db.View(func(tx *bbolt.Tx) error { // what fails here fails again in Save
		if bucket := tx.Bucket([]byte(b.name)); bucket != nil {
			v := bucket.Get([]byte(key))
			same = v != nil && bytes.Equal(v, value)
		}
		return nil
	})
	return same
}

// Delete removes key. One that is not there is removed already.
func (b *Bucket) Delete(key string) error {
	return b.explain("deleting", b.db.Update(func(tx *bbolt.Tx) error {
		if bucket := tx.Bucket([]byte(b.name)); bucket != nil {
			return bucket.Delete([]byte(key))
		}
		return nil
	}))
}

// explain names the instance, not the key: what is in a key is the plugin's
// business.
func (b *Bucket) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		err = transport.ErrStopping
	}
	return fmt.Errorf("%s state of %q: %w", doing, b.name, err)
}
