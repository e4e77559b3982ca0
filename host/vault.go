package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/config"
	"github.com/transporthost/transporthost/host/credentials"
	"github.com/transporthost/transporthost/host/state"
	"github.com/transporthost/transporthost/shared/transport"
)

// A vault is what the host keeps for transports that are granted it. Each part
// is opened when the first of them is about to start: a host without one reads
// no credentials, and takes no lock.
type vault struct {
	cfg     Config
	log     hclog.Logger
	changed func(transport.CredentialsChange)

	mu      sync.Mutex // guards what follows; held while a part is opened
	account *credentials.Store
	state   *state.Store
}

// open opens what is granted. start runs the goroutine of what has one.
func (v *vault) open(grants []Grant, start func(func(context.Context) error)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if slices.Contains(grants, GrantCredentials) && v.account == nil {
		account, err := v.openAccount()
		if err != nil {
			return err
		}
		v.account = account
		start(account.Run)
	}
	if slices.Contains(grants, GrantState) && v.state == nil {
		s, err := v.openState()
		if err != nil {
			return err
		}
		v.state = s
	}
	return nil
}

func (v *vault) openAccount() (*credentials.Store, error) {
	c := v.cfg.Credentials
	file, err := place(c.File, config.AuthFile)
	if err != nil {
		return nil, err
	}
	return credentials.New(credentials.Options{
		File: file, TokenURL: c.TokenURL, ClientID: c.ClientID, Proxy: c.Proxy, CAFile: c.CAFile,
		Name: config.Originator(os.Getenv), Version: Version(), Logger: v.log.Named("credentials"), Changed: v.changed,
	})
}

func (v *vault) openState() (*state.Store, error) {
	dir, err := place(v.cfg.StateDir, config.StateDir)
	if err != nil {
		return nil, err
	}
	return state.Open(dir)
}

// place returns the configured path, or the usual one.
func place(configured string, usual func(func(string) string) (string, error)) (string, error) {
	if configured == "" {
		return usual(os.Getenv)
	}
	return filepath.Abs(configured)
}

// bucket returns what an instance has stored, or nil if the state is not open.
func (v *vault) bucket(instance string) *state.Bucket {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state == nil {
		return nil
	}
	return v.state.Instance(instance)
}

// errNoAccount is returned for questions about credentials that nobody needs.
var errNoAccount = errors.New("this host has no credentials open: no transport that is granted them has been started")

// credentials returns the open store of credentials.
func (v *vault) credentials() (*credentials.Store, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.account == nil {
		return nil, errNoAccount
	}
	return v.account, nil
}

// close closes what is open, once nobody uses it.
func (v *vault) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state == nil {
		return nil
	}
	err := v.state.Close()
	v.state = nil
	return err
}
