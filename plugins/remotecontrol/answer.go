package remotecontrol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	// maxAnswerBytes bounds what is read of an answer; a real one has some
	// hundred.
	maxAnswerBytes = 64 << 10
	// maxPreviewBytes bounds what an error shows of a body (spec 2.3).
	maxPreviewBytes = 4096
	// maxRetryAfter bounds what a backend can ask for: a wrong date must not
	// silence this host until somebody restarts it.
	maxRetryAfter = time.Hour

	noValue  = "<none>"
	redacted = "<redacted>"
)

// secretFields are the top-level fields of an answer that are never shown.
var secretFields = [...]string{"remote_control_token", "pairing_code", "manual_pairing_code"}

// secretField finds the same where there is no whole JSON to look into: a cut
// or a malformed body.
var secretField = regexp.MustCompile(`("(?:remote_control_token|pairing_code|manual_pairing_code)"\s*:\s*)"(?:[^"\\]|\\.)*(?:"|\\?$)`)

// policyWords are in the refusals that no retry, refresh or new enrollment can
// cure: the account's owner or administrator must do something first.
var policyWords = regexp.MustCompile(`(?i)multi-?factor|\bmfa\b|two-?factor|\b2fa\b|single sign-on|\bsso\b|workspace|\bpolic(?:y|ies)\b|administrator|organi[sz]ation`)

// An answer is an HTTP answer of the backend, or of something in front of it.
type answer struct {
	code       int
	requestID  string // or noValue
	cfRay      string // or noValue
	retryAfter time.Duration
	html       bool   // a page for people: it does not come from the backend
	body       []byte // at most maxAnswerBytes, as it came
	hide       []pluginsdk.Secret
	compact    bool // previews of JSON are written anew (profile 3)
}

// readAnswer reads what is left of an answer. hide are secrets that the
// request carried, and that an answer may repeat.
func readAnswer(r *http.Response, p profile, now time.Time, hide ...pluginsdk.Secret) (*answer, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswerBytes))
	a := &answer{
		code:       r.StatusCode,
		requestID:  headerText(r.Header, "X-Request-Id", "X-Oai-Request-Id"),
		cfRay:      headerText(r.Header, "Cf-Ray"),
		retryAfter: parseRetryAfter(r.Header.Get("Retry-After"), now),
		body:       body,
		hide:       hide,
		compact:    p == profile3,
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	start := bytes.ToLower(bytes.TrimSpace(body[:min(len(body), 512)]))
	a.html = strings.EqualFold(strings.TrimSpace(kind), "text/html") ||
		bytes.HasPrefix(start, []byte("<!doctype html")) || bytes.HasPrefix(start, []byte("<html"))
	return a, err
}

// headerText is the first of the headers that is there.
func headerText(h http.Header, names ...string) string {
	for _, name := range names {
		v, ok := h[name]
		if !ok || len(v) == 0 {
			continue
		}
		if strings.ContainsFunc(v[0], func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }) {
			return "<invalid utf-8>"
		}
		return cutAt(v[0], 256)
	}
	return noValue
}

// parseRetryAfter reads seconds or an HTTP date. What is no such thing, or past,
// is 0.
func parseRetryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0
	}
	if s, err := strconv.ParseUint(v, 10, 64); err == nil {
		return time.Duration(min(s, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(t.Sub(now), 0), maxRetryAfter)
}

func (a *answer) success() bool { return a.code >= 200 && a.code <= 299 }

// unauthorized reports whether the backend itself refuses the credentials.
func (a *answer) unauthorized() bool {
	return (a.code == http.StatusUnauthorized || a.code == http.StatusForbidden) && !a.html
}

// policy reports whether the refusal names a rule that credentials cannot meet.
func (a *answer) policy() bool {
	return a.code == http.StatusForbidden && !a.html && policyWords.MatchString(a.words())
}

// transient reports whether the same request may succeed later.
func (a *answer) transient() bool {
	return a.code == http.StatusTooManyRequests || a.code == http.StatusRequestTimeout || a.code >= 500
}

// status is the code with its reason: "401 Unauthorized".
func (a *answer) status() string {
	reason := http.StatusText(a.code)
	if reason == "" {
		reason = "<unknown status code>"
	}
	return fmt.Sprintf("%d %s", a.code, reason)
}

func (a *answer) ids() string {
	return "request-id: " + a.requestID + ", cf-ray: " + a.cfRay
}

// preview is what errors show of the body (spec 2.3).
func (a *answer) preview() string {
	text := string(a.body)
	var object map[string]json.RawMessage
	if json.Unmarshal(a.body, &object) == nil && object != nil {
		found := false
		for _, name := range secretFields {
			if _, ok := object[name]; ok {
				found = true
				object[name] = json.RawMessage(`"` + redacted + `"`)
			}
		}
		if found || a.compact {
			text = encodeObject(object)
		}
	}
	text = strings.TrimSpace(a.clean(text))
	if text == "" {
		return "<empty>"
	}
	return cutAt(text, maxPreviewBytes)
}

// clean is text without secrets that stand in it in some other way: deeper in
// the JSON, in JSON that is cut, or repeated from the request.
func (a *answer) clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = secretField.ReplaceAllString(text, `${1}"`+redacted+`"`)
	for _, s := range a.hide {
		if s != "" {
			text = strings.ReplaceAll(text, string(s), redacted)
		}
	}
	return text
}

func encodeObject(object map[string]json.RawMessage) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // <redacted> is for people
	if e.Encode(object) != nil {
		return redacted
	}
	return b.String()
}

// words is what the server says in a JSON answer, on one line; "" if it says
// nothing that is for people.
func (a *answer) words() string {
	var object map[string]json.RawMessage
	if json.Unmarshal(a.body, &object) != nil {
		return ""
	}
	return oneLine(a.clean(wordsOf(object, 2)))
}

// wordsOf looks for the first text among the fields that hold messages, in
// objects too, as far down as depth.
func wordsOf(object map[string]json.RawMessage, depth int) string {
	for _, name := range [...]string{"detail", "message", "error_description", "error"} {
		var text string
		if json.Unmarshal(object[name], &text) == nil && strings.TrimSpace(text) != "" {
			return strings.TrimSpace(text)
		}
		var inner map[string]json.RawMessage
		if depth > 0 && json.Unmarshal(object[name], &inner) == nil {
			if text := wordsOf(inner, depth-1); text != "" {
				return text
			}
		}
	}
	return ""
}

// missingServer reports whether a 404 of the websocket says that the enrollment
// is gone, and not that something on the way has no such page.
func (a *answer) missingServer() bool {
	var body struct {
		Detail string `json:"detail"`
	}
	return a.code == http.StatusNotFound && json.Unmarshal(a.body, &body) == nil && body.Detail == "Remote app server not found"
}
