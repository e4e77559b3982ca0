// Package fakehost is the host's side of remote control, as small as it can
// be: a script enrolls, connects and says frame by frame what goes over the
// wire, or lets an [Echo] do so. The tests of the backend are written with it.
package fakehost

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	path = "wham/remote/control/server"
	// timeout bounds every wait of a script.
	timeout = 30 * time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 1 << 20
)

// A Host knows its credentials and, once enrolled, its ids. The fields may be
// changed between two calls, to do something wrong.
type Host struct {
	BaseURL        string // ends in a slash
	Protocol       string // "2" or "3"
	AccountID      string
	AccessToken    string
	Name           string
	InstallationID string

	ServerID      string
	EnvironmentID string
	ServerToken   string // "": the account's token on the WebSocket
	Cursor        string // of the last envelope read that had one

	Change func(http.Header) // a last change to the headers of every request; may be nil
}

// New is a host with credentials that wants profile "2" or "3".
func New(baseURL, protocol, accountID, accessToken string) *Host {
	return &Host{BaseURL: baseURL, Protocol: protocol, AccountID: accountID, AccessToken: accessToken,
		Name: "workshop", InstallationID: "0f6d1f3c-51a6-4b5e-9d3b-0d6f2f3f8a11"}
}

// An Answer is what the backend said.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Enroll posts an enrollment and takes up the ids of a good answer.
func (h *Host) Enroll(ctx context.Context) (Answer, error) {
	body := fmt.Sprintf(`{"name":%q,"os":"linux","arch":"x86_64","app_server_version":"1.2.3"`, h.Name)
	if h.Protocol == "3" {
		body += fmt.Sprintf(`,"installation_id":%q`, h.InstallationID)
	}
	return h.register(ctx, path+"/enroll", body+"}")
}

// Refresh posts a refresh and takes up the token of a good answer.
func (h *Host) Refresh(ctx context.Context) (Answer, error) {
	return h.register(ctx, path+"/refresh", fmt.Sprintf(`{"server_id":%q,"installation_id":%q}`, h.ServerID, h.InstallationID))
}

func (h *Host) register(ctx context.Context, where, body string) (Answer, error) {
	a, err := h.Post(ctx, h.BaseURL+where, body)
	if err != nil || a.Status != http.StatusOK {
		return a, err
	}
	var in struct {
		ServerID      string `json:"server_id"`
		EnvironmentID string `json:"environment_id"`
		Token         string `json:"remote_control_token"`
	}
	if err := json.Unmarshal([]byte(a.Body), &in); err != nil {
		return a, fmt.Errorf("reading an enrollment: %w", err)
	}
	h.ServerID, h.EnvironmentID, h.ServerToken = in.ServerID, in.EnvironmentID, in.Token
	return a, nil
}

// Post sends a body with the headers of an enrollment.
func (h *Host) Post(ctx context.Context, url, body string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	r.Header = http.Header{"Authorization": {"Bearer " + h.AccessToken}, "Chatgpt-Account-Id": {h.AccountID}, "Content-Type": {"application/json"},
		"Originator": {"codex_cli_rs"}, "User-Agent": {"codex_cli_rs/1.2.3 (Linux 6.1; x86_64) xterm"}}
	if h.Protocol == "3" {
		r.Header.Set("X-Codex-Installation-Id", h.InstallationID)
	}
	if h.Change != nil {
		h.Change(r.Header)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return Answer{Status: response.StatusCode, Header: response.Header, Body: string(text)}, err
}

// Dial opens the WebSocket. If the backend refuses, the answer says how.
func (h *Host) Dial(ctx context.Context) (*Socket, Answer, error) {
	header := http.Header{"X-Codex-Server-Id": {h.ServerID}, "X-Codex-Name": {base64.StdEncoding.EncodeToString([]byte(h.Name))},
		"X-Codex-Protocol-Version": {h.Protocol}, "Authorization": {"Bearer " + h.AccessToken}}
	if h.ServerToken != "" {
		header.Set("Authorization", "Bearer "+h.ServerToken)
	} else {
		header.Set("Chatgpt-Account-Id", h.AccountID)
	}
	if h.Protocol == "3" {
		header.Set("X-Codex-Installation-Id", h.InstallationID)
	}
	if h.Cursor != "" {
		header.Set("X-Codex-Subscribe-Cursor", h.Cursor)
	}
	if h.Change != nil {
		h.Change(header)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dialer := websocket.Dialer{ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10}
	sock, response, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(h.BaseURL, "http")+path, header)
	var a Answer
	if response != nil {
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // what there is of it
		a = Answer{Status: response.StatusCode, Header: response.Header, Body: string(text)}
	}
	if err != nil {
		return nil, a, err
	}
	s := &Socket{Conn: sock, host: h}
	sock.SetPongHandler(func(string) error { s.Pongs++; return nil })
	return s, a, nil
}

// A Socket is the host's end of a WebSocket. It has one user at a time.
type Socket struct {
	*websocket.Conn
	Pongs int // seen while reading
	host  *Host
}

// An Envelope is what the backend sent.
type Envelope struct {
	Type     string          `json:"type"`
	ClientID string          `json:"client_id"`
	StreamID string          `json:"stream_id"`
	Seq      *uint64         `json:"seq_id"`
	Cursor   string          `json:"cursor"`
	Message  json.RawMessage `json:"message"`
	Segment  *int            `json:"segment_id"`
	Count    int             `json:"segment_count"`
	Size     int             `json:"message_size_bytes"`
	Chunk    []byte          `json:"message_chunk_base64"`

	Text []byte `json:"-"` // as it came
}

// Method is the method of the message, "" if there is none.
func (e *Envelope) Method() string {
	var m struct {
		Method string `json:"method"`
	}
	_ = json.Unmarshal(e.Message, &m) // no message: no method
	return m.Method
}

// Next reads an envelope and takes up its cursor, unless it is a segment that
// is not the last one.
func (s *Socket) Next() (Envelope, error) {
	e, err := s.Peek()
	if err == nil && e.Cursor != "" && (e.Type != "client_message_chunk" || *e.Segment == e.Count-1) {
		s.host.Cursor = e.Cursor
	}
	return e, err
}

// Peek reads an envelope and leaves the cursor alone.
func (s *Socket) Peek() (Envelope, error) {
	if err := s.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return Envelope{}, err
	}
	_, text, err := s.ReadMessage()
	if err != nil {
		return Envelope{}, err
	}
	e := Envelope{Text: text}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("reading an envelope: %w", err)
	}
	return e, nil
}

// Write sends a text frame.
func (s *Socket) Write(format string, args ...any) error {
	return s.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...))
}

// Message sends a server_message.
func (s *Socket) Message(client, stream string, seq uint64, message string) error {
	return s.WriteMessage(websocket.TextMessage, Message(client, stream, seq, message))
}

// Pong sends a pong.
func (s *Socket) Pong(client, stream string, seq uint64, status string) error {
	return s.Write(`{"type":"pong","status":%q,"client_id":%q,"stream_id":%q,"seq_id":%d}`, status, client, stream, seq)
}

// Segment sends a server_message_chunk.
func (s *Socket) Segment(client, stream string, seq uint64, id, count, size int, data []byte) error {
	return s.WriteMessage(websocket.TextMessage, Segment(client, stream, seq, id, count, size, data))
}

// Message is the envelope of a message.
func Message(client, stream string, seq uint64, message string) []byte {
	return fmt.Appendf(nil, `{"type":"server_message","message":%s,"client_id":%q,"stream_id":%q,"seq_id":%d}`, message, client, stream, seq)
}

// Segment is the envelope of a segment.
func Segment(client, stream string, seq uint64, id, count, size int, data []byte) []byte {
	return fmt.Appendf(nil, `{"type":"server_message_chunk","segment_id":%d,"segment_count":%d,"message_size_bytes":%d,"message_chunk_base64":"%s","client_id":%q,"stream_id":%q,"seq_id":%d}`,
		id, count, size, base64.StdEncoding.EncodeToString(data), client, stream, seq)
}

// Cut is how the specification cuts a message: the envelopes in order, one if
// it fits.
func Cut(client, stream string, seq uint64, message string) [][]byte {
	const target, limit = 100 << 10, 150 << 10
	if whole := Message(client, stream, seq, message); len(whole) <= limit {
		return [][]byte{whole}
	}
	n := max(2, (len(message)+target-1)/target)
	piece := (len(message) + n - 1) / n
	n = (len(message) + piece - 1) / piece
	var all [][]byte
	for i := range n {
		data := []byte(message)[i*piece : min((i+1)*piece, len(message))]
		all = append(all, Segment(client, stream, seq, i, n, len(message), data))
	}
	return all
}

// Padded is a JSON-RPC notification of exactly size bytes.
func Padded(size int) string {
	const head, tail = `{"method":"pad","params":"`, `"}`
	return head + string(bytes.Repeat([]byte("x"), size-len(head)-len(tail))) + tail
}
