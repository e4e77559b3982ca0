package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// An AuthVariant is a kind of auth.json.
type AuthVariant uint8

const (
	_               AuthVariant = iota // the zero value is a bug, not a default
	AuthChatGPT                        // complete
	AuthNoAccountID                    // account_id is null; the claim in the id token is there
	AuthNoTokens                       // chatgpt mode without tokens
	AuthAPIKey                         // an API key and nothing else
)

// AuthFile is the content of an auth.json for an account. refreshed is its
// last_refresh.
func AuthFile(variant AuthVariant, a Account, refreshed time.Time) ([]byte, error) {
	type tokens struct {
		IDToken      string  `json:"id_token"`
		AccessToken  string  `json:"access_token"`
		RefreshToken string  `json:"refresh_token"`
		AccountID    *string `json:"account_id"`
	}
	var file struct {
		Mode        string     `json:"auth_mode"`
		APIKey      *string    `json:"OPENAI_API_KEY"`
		Tokens      *tokens    `json:"tokens"`
		LastRefresh *time.Time `json:"last_refresh,omitempty"`
	}
	file.Mode = "chatgpt"
	full := &tokens{IDToken: string(a.IDToken), AccessToken: string(a.AccessToken), RefreshToken: string(a.RefreshToken)}
	refreshed = refreshed.UTC()
	switch variant {
	case AuthChatGPT:
		full.AccountID = &a.ID
		file.Tokens, file.LastRefresh = full, &refreshed
	case AuthNoAccountID:
		file.Tokens, file.LastRefresh = full, &refreshed
	case AuthNoTokens:
	case AuthAPIKey:
		key := "sk-" + string(fakeJWT(nil))[:20]
		file.Mode, file.APIKey = "apikey", &key
	default:
		return nil, fmt.Errorf("there is no auth file of variant %d", variant)
	}
	content, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding an auth file: %w", err)
	}
	return append(content, '\n'), nil
}

// WriteAuthFile replaces the file at path, readable for its owner only, in one
// step: a reader sees the old content or the new one.
func WriteAuthFile(path string, variant AuthVariant, a Account) error {
	content, err := AuthFile(variant, a, time.Now())
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".auth-*") // 0600
	if err != nil {
		return fmt.Errorf("writing an auth file: %w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing an auth file: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// Secrets lists every token that the backend knows and has known, for a test
// that looks for them where they must not be.
func (b *Backend) Secrets() []transport.Secret {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []transport.Secret
	for _, a := range b.accounts {
		all = append(all, a.IDToken, a.AccessToken, a.RefreshToken)
		for token := range a.access {
			all = append(all, transport.Secret(token))
		}
		for token := range a.spent {
			all = append(all, transport.Secret(token))
		}
	}
	for _, e := range b.enrollments {
		for _, token := range e.tokens {
			all = append(all, transport.Secret(token))
		}
	}
	return all
}
