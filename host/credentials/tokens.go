package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"unicode"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// maxAnswerBytes bounds what is read of the token endpoint's answer: three
	// tokens of some kilobytes.
	maxAnswerBytes = 1 << 20
	// maxWords bounds what is shown of its explanation.
	maxWords = 200
)

// A refreshRequest is what the token endpoint is asked (spec §3.7).
type refreshRequest struct {
	ClientID     string `json:"client_id"`
	GrantType    string `json:"grant_type"`
	RefreshToken string `json:"refresh_token"` // not a Secret: this is where it must be written
}

// askForTokens returns t with what the token endpoint gives for it. A failure
// that would repeat itself is [permanent]; no error contains a token.
func (s *Store) askForTokens(ctx context.Context, t tokens) (tokens, error) {
	body, err := json.Marshal(refreshRequest{ClientID: s.opts.ClientID, GrantType: "refresh_token", RefreshToken: string(t.refresh)})
	if err != nil {
		return tokens{}, fmt.Errorf("encoding the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opts.TokenURL, bytes.NewReader(body))
	if err != nil {
		return tokens{}, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Originator", s.opts.Name) // and the agent: as the reference's default client (spec §3.7)
	req.Header.Set("User-Agent", fmt.Sprintf("%s/%s (%s unknown; %s) transporthost", s.opts.Name, s.opts.Version, runtime.GOOS, runtime.GOARCH))
	req.Close = true // the next one is days away
	resp, err := s.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may hold a password
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return tokens{}, transient{withRemedy(err)}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if resp.StatusCode/100 != 2 {
		return tokens{}, refusal(resp.StatusCode, answer, t) // what of the answer could be read
	}
	if err != nil {
		return tokens{}, transient{fmt.Errorf("reading the answer: %w", err)}
	}
	fresh, err := t.with(answer)
	if err != nil {
		return tokens{}, transient{err}
	}
	return fresh, nil
}

// with returns t with the tokens of an answer in the place of its own. The
// account stays (spec §3.2).
func (t tokens) with(answer []byte) (tokens, error) {
	f, err := fieldsOf(answer)
	if err != nil {
		return tokens{}, fmt.Errorf("the answer is %w", err)
	}
	var id, access, refresh *string
	if err := errors.Join(f.read("id_token", &id), f.read("access_token", &access), f.read("refresh_token", &refresh)); err != nil {
		return tokens{}, fmt.Errorf("in the answer, %w", err)
	}
	if access != nil && *access != "" {
		t.access = transport.Secret(*access)
	}
	if refresh != nil && *refresh != "" {
		t.refresh = transport.Secret(*refresh)
	}
	if id == nil {
		return t, nil
	}
	// An id token that cannot be read would make the whole file unreadable;
	// losing the new refresh token over it would be worse.
	if is, err := fedRAMP(*id); err == nil {
		t.id, t.fedRAMP = transport.Secret(*id), is
	}
	return t, nil
}

// refusal makes the error of an answer that is not a success.
func refusal(status int, answer []byte, t tokens) error {
	code, message := explanation(answer)
	switch strings.ToLower(code) {
	case "refresh_token_expired":
		return permanent(textExpired)
	case "refresh_token_reused":
		return permanent(textReused)
	case "refresh_token_invalidated":
		return permanent(textRevoked)
	}
	if status == http.StatusUnauthorized {
		return permanent(textNotAllowed)
	}
	words := message
	if words == "" {
		words = code
	}
	if words = quotable(words, t); words == "" {
		words = "Unknown error"
	}
	return transient{fmt.Errorf("%s: %s", strings.TrimSpace(fmt.Sprint(status, " ", http.StatusText(status))), words)}
}

// explanation finds code and message in the body of a refusal: error.code,
// error or code.
func explanation(body []byte) (code, message string) {
	f, err := fieldsOf(body)
	if err != nil {
		return "", ""
	}
	text := func(f fields, name string) string {
		var s *string
		if f.read(name, &s) != nil || s == nil {
			return ""
		}
		return *s
	}
	message = text(f, "error_description")
	if inner, err := fieldsOf(f["error"]); err == nil {
		if m := text(inner, "message"); m != "" {
			message = m
		}
		code = text(inner, "code")
	}
	for _, name := range []string{"error", "code"} {
		if code == "" {
			code = text(f, name)
		}
	}
	return code, message
}

// quotable makes one short line of the server's words, without our tokens in
// it, should it repeat them.
func quotable(words string, t tokens) string {
	for _, secret := range []transport.Secret{t.refresh, t.access, t.id} {
		if secret != "" {
			words = strings.ReplaceAll(words, string(secret), "[redacted]")
		}
	}
	words = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, words)
	words = strings.Join(strings.Fields(words), " ")
	if runes := []rune(words); len(runes) > maxWords {
		return string(runes[:maxWords]) + "…"
	}
	return words
}
