package backend

import (
	"encoding/json"
	"net/http"
	"slices"
)

// token is the OAuth token endpoint: it takes a refresh token once and gives
// new tokens. Access tokens from before stay good until they expire.
func (b *Backend) token(r *http.Request, body []byte) reply {
	var in struct {
		ClientID     string `json:"client_id"`
		GrantType    string `json:"grant_type"`
		RefreshToken string `json:"refresh_token"`
	}
	keys, _, err := decodeObject(body)
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	slices.Sort(keys)
	switch {
	case r.Method != http.MethodPost:
		b.violate(0, problemf(BadRequest, "%s on %s", r.Method, r.URL.Path))
	case err != nil:
		b.violate(0, problemf(BadRequest, "the token request is no JSON object of strings"))
	case !slices.Equal(keys, []string{"client_id", "grant_type", "refresh_token"}):
		b.violate(0, problemf(BadRequest, "the token request has the fields %q", keys))
	case in.GrantType != "refresh_token":
		b.violate(0, problemf(BadRequest, "grant_type is %q", shortened(in.GrantType)))
	case in.ClientID != b.opts.OAuthClient:
		b.violate(0, problemf(BadRequest, "client_id is %q, want %q", shortened(in.ClientID), b.opts.OAuthClient))
	default:
		return b.exchange(in.RefreshToken)
	}
	return jsonReply(http.StatusBadRequest, map[string]any{"error": map[string]string{"code": "invalid_request", "message": "invalid request"}})
}

// exchange gives new tokens for a refresh token.
func (b *Backend) exchange(refresh string) reply {
	code := "refresh_token_invalidated" // of one that we never gave
	for _, a := range b.accounts {
		if why, spent := a.spent[refresh]; spent {
			code = why
		} else if refresh == string(a.RefreshToken) {
			a.spent[refresh] = "refresh_token_reused"
			b.renew(a)
			b.refreshes++
			b.notify()
			b.log.Info("refreshed the tokens of an account", "account", a.ID)
			return jsonReply(http.StatusOK, map[string]string{"id_token": string(a.IDToken),
				"access_token": string(a.AccessToken), "refresh_token": string(a.RefreshToken)})
		}
	}
	return jsonReply(http.StatusUnauthorized, map[string]any{"error": map[string]string{
		"code": code, "message": "the refresh token is refused", "type": "invalid_request_error"}})
}

// Refreshes is how often the token endpoint gave new tokens.
func (b *Backend) Refreshes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refreshes
}
