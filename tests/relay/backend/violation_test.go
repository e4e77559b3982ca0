package backend_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/transporthost/transporthost/tests/relay/backend"
	"github.com/transporthost/transporthost/tests/relay/fakehost"
)

// TestViolationsOnLinks breaks each rule of the envelopes once.
func TestViolationsOnLinks(t *testing.T) {
	// envelope is a good one, but for what is replaced in it.
	envelope := func(pairs ...string) func(*bench, *fakehost.Socket) {
		text := `{"type":"server_message","message":{"method":"m"},"client_id":"c1","stream_id":"s1","seq_id":1}`
		return frames(strings.NewReplacer(pairs...).Replace(text))
	}
	chunk := func(id, count, size int, data string) string {
		return string(fakehost.Segment("c1", "s1", 1, id, count, size, []byte(data)))
	}
	message := func(seq uint64, m string) string { return string(fakehost.Message("c1", "s1", seq, m)) }
	large := fakehost.Padded(250 << 10)
	cut := func(i int) string { return string(fakehost.Cut("c1", "s1", 1, large)[i]) }
	tests := []struct {
		name string
		do   func(*bench, *fakehost.Socket)
		want backend.ViolationKind
	}{
		{"none", envelope(), ""},
		{"binary", func(b *bench, s *fakehost.Socket) { b.must(s.WriteMessage(2, []byte("{}"))) }, backend.BadFrame},
		{"no JSON", frames(`{"type":`), backend.BadFrame},
		{"no object", frames(`[]`), backend.BadFrame},
		{"two objects", frames(`{} {}`), backend.BadFrame},
		{"a key twice", envelope(`"seq_id":1`, `"seq_id":1,"seq_id":1`), backend.BadFrame},
		{"no UTF-8", frames("{\"a\":\"\xff\"}"), backend.BadFrame},
		{"unknown type", envelope("server_message", "server_wave"), backend.BadEnvelope},
		{"an ack of the host", frames(`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":1}`), backend.BadEnvelope},
		{"a field too much", envelope(`"seq_id":1`, `"seq_id":1,"cursor":"x"`), backend.BadEnvelope},
		{"a field too few", envelope(`,"stream_id":"s1"`, ``), backend.BadEnvelope},
		{"an empty stream", envelope(`"s1"`, `""`), backend.BadEnvelope},
		{"a number as text", envelope(`"seq_id":1`, `"seq_id":"1"`), backend.BadEnvelope},
		{"null", envelope(`"c1"`, `null`), backend.BadEnvelope},
		{"a status", frames(`{"type":"pong","status":"fine","client_id":"c1","stream_id":"s1","seq_id":1}`), backend.BadEnvelope},
		{"order", frames(`{"type":"server_message","client_id":"c1","stream_id":"s1","seq_id":1,"message":{"method":"m"}}`), backend.KeyOrder},
		{"a stream of nobody", envelope(`"s1"`, `"s2"`), backend.BadStreamID},
		{"a UUIDv4", envelope(`"s1"`, `"0f6d1f3c-51a6-4b5e-9d3b-0d6f2f3f8a11"`), backend.BadStreamID},
		{"a stream of the host", envelope(`"s1"`, `"`+backend.NewStreamID()+`"`), ""},
		{"no JSON-RPC", envelope(`{"method":"m"}`, `{"params":1}`), backend.BadMessage},
		{"a message that is text", envelope(`{"method":"m"}`, `"m"`), backend.BadMessage},
		{"a client of nobody", envelope(`"c1"`, `"c2"`), backend.Unasked},
		{"number 0", envelope(`"seq_id":1`, `"seq_id":0`), backend.SeqGap},
		{"begins at 2", envelope(`"seq_id":1`, `"seq_id":2`), backend.SeqGap},
		{"a gap", frames(message(1, `{"method":"m"}`), message(3, `{"method":"m"}`)), backend.SeqGap},
		{"twice", frames(message(1, `{"method":"m"}`), message(1, `{"method":"m"}`)), backend.SeqRepeat},
		{"back", frames(message(1, `{"method":"m"}`), message(2, `{"method":"m"}`), message(1, `{"method":"m"}`)), backend.SeqRepeat},
		{"a segment left out", frames(cut(0), cut(2)), backend.SeqGap},
		{"a segment twice", frames(cut(0), cut(0)), backend.SeqRepeat},
		{"base64", frames(strings.Replace(chunk(0, 2, 200000, "abc"), "YWJj", "YWJ", 1)), backend.BadChunk},
		{"no data", frames(chunk(0, 2, 200000, "")), backend.BadChunk},
		{"no segments", frames(chunk(0, 0, 200000, "abc")), backend.BadChunk},
		{"1025 segments", frames(chunk(0, 1025, 200000, "abc")), backend.BadChunk},
		{"a segment out of range", frames(chunk(2, 2, 200000, "abc")), backend.BadChunk},
		{"100 MiB and a byte", frames(chunk(0, 2, 100<<20+1, "abc")), backend.BadChunk},
		{"more than the size", frames(chunk(0, 2, 2, "abc")), backend.BadChunk},
		{"other pieces", frames(chunk(0, 3, 250<<10, large[:100<<10])), backend.BadChunk},
		{"other numbers", frames(cut(0), strings.Replace(cut(1), `"segment_count":3`, `"segment_count":4`, 1)), backend.BadChunk},
		{"needless segments", frames(chunk(0, 2, 1000, strings.Repeat("x", 500))), backend.NeedlessChunk},
		{"an envelope over the limit", frames(message(1, fakehost.Padded(150<<10))), backend.TooLarge},
		{"129 envelopes", func(b *bench, s *fakehost.Socket) {
			b.StopAcks()
			for i := range uint64(129) {
				b.must(s.Message("c1", "s1", 1+i, `{"method":"m"}`))
			}
		}, backend.OverRetention},
		{"4 MiB", func(b *bench, s *fakehost.Socket) {
			b.StopAcks()
			for i := range uint64(43) { // 42 times 100,000 bytes are more than 4 MiB
				b.must(s.Message("c1", "s1", 1+i, fakehost.Padded(100_000)))
			}
		}, backend.OverRetention},
		{"nothing sent again", func(b *bench, s *fakehost.Socket) {
			reconnect(b, s, message(3, `{"method":"m"}`))
		}, backend.NotResent},
		{"sent again in full", func(b *bench, s *fakehost.Socket) {
			reconnect(b, s, message(1, `{"method":"m1"}`), message(2, `{"method":"m2"}`), message(3, `{"method":"m"}`))
		}, ""},
		{"sent again up to the ack", func(b *bench, s *fakehost.Socket) {
			reconnect(b, s, message(1, `{"method":"m1"}`))
			_, err := b.AwaitFrame(b.ctx, func(f backend.Frame) bool { return f.Link == 2 })
			b.must(err)
			b.Heal() // and so acknowledges both
			b.next(b.last, "ack")
			frames(message(3, `{"method":"m"}`))(b, b.last)
		}, ""},
		{"sent again with a gap", func(b *bench, s *fakehost.Socket) {
			reconnect(b, s, message(1, `{"method":"m1"}`), message(3, `{"method":"m"}`))
		}, backend.SeqGap},
		{"sent again with other bytes", func(b *bench, s *fakehost.Socket) {
			reconnect(b, s, message(1, `{"method":"m0"}`))
		}, backend.ResendDiffers},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, backend.Options{})
			sock := b.dial()
			c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
			b.send(c, initialize)
			b.next(sock, "client_message")
			tt.do(b, sock)
			b.flush()
			if tt.want == "" {
				b.Verify(t)
				return
			}
			var others []string
			found := 0
			for _, v := range b.Violations() {
				if v.Kind == tt.want && v.Link > 0 {
					found++
				} else {
					others = append(others, v.String())
				}
			}
			if found != 1 || len(others) > 0 {
				t.Errorf("got %d times %q and %q, want it once and nothing else", found, tt.want, others)
			}
			b.Verify(t, tt.want)
		})
	}
}

// frames writes text frames.
func frames(texts ...string) func(*bench, *fakehost.Socket) {
	return func(b *bench, s *fakehost.Socket) {
		for _, text := range texts {
			b.must(s.WriteMessage(1, []byte(text)))
		}
	}
}

// reconnect sends two messages that are not acknowledged, and the frames on a
// second socket.
func reconnect(b *bench, s *fakehost.Socket, texts ...string) {
	b.StopAcks()
	for i := uint64(1); i <= 2; i++ {
		b.must(s.Message("c1", "s1", i, fmt.Sprintf(`{"method":"m%d"}`, i)))
	}
	if _, err := b.AwaitFrame(b.ctx, func(f backend.Frame) bool { return f.Envelope.Seq == 2 }); err != nil {
		b.t.Fatal(err)
	}
	b.Drop()
	frames(texts...)(b, b.dial())
}

// flush waits until the backend has read all that the host sent: it sends a
// frame that is told from all others.
func (b *bench) flush() {
	b.t.Helper()
	b.must(b.open(backend.ClientOptions{ID: "sentinel", StreamID: "s"}).InjectText(`{}`))
	b.must(b.last.Pong("sentinel", "s", 1, "active"))
	_, err := b.AwaitFrame(b.ctx, func(f backend.Frame) bool { return f.Envelope.ClientID == "sentinel" })
	b.must(err)
}

func TestViolationsOfRequests(t *testing.T) {
	header := func(name, value string) func(*bench) {
		return func(b *bench) {
			b.host.Change = func(h http.Header) {
				if h.Del(name); value != "" {
					h.Set(name, value)
				}
			}
		}
	}
	tests := []struct {
		name       string
		profile    backend.Profile
		do         func(*bench) // changes the host
		body       string       // "": as it should be
		wantStatus int
		wantKind   backend.ViolationKind
		wantSay    string
	}{
		{"content type", 0, header("Content-Type", "text/plain"), "", 200, backend.BadRequest, "content-type"},
		{"no token", 0, header("Authorization", ""), "", 401, backend.BadRequest, "authorization"},
		{"no account", 0, header("Chatgpt-Account-Id", ""), "", 401, backend.BadRequest, "chatgpt-account-id"},
		{"no originator", 0, header("Originator", ""), "", 200, backend.BadRequest, "originator"},
		{"user agent", 0, header("User-Agent", "curl/8"), "", 200, backend.BadRequest, "user-agent"},
		{"no installation", 0, header("X-Codex-Installation-Id", ""), "", 200, backend.BadRequest, "x-codex-installation-id"},
		{"installation in profile 2", backend.Profile2, header("X-Codex-Installation-Id", "x"), "", 200, backend.BadRequest, "x-codex-installation-id"},
		{"FedRAMP", 0, header("X-Openai-Fedramp", "true"), "", 200, backend.BadRequest, "X-OpenAI-Fedramp"},
		{"wrong token", 0, func(b *bench) { b.host.AccessToken = "nobody's" }, "", 401, "", ""},
		{"order", 0, nil, `{"os":"linux","name":"n","arch":"x86_64","app_server_version":"1","installation_id":"0f6d1f3c-51a6-4b5e-9d3b-0d6f2f3f8a11"}`, 422, backend.BadRequest, "fields"},
		{"Go's names", 0, nil, `{"name":"n","os":"darwin","arch":"arm64","app_server_version":"1","installation_id":"0f6d1f3c-51a6-4b5e-9d3b-0d6f2f3f8a11"}`, 200, backend.BadRequest, "Rust"},
		{"spaces", 0, nil, `{"name":" n","os":"linux","arch":"x86_64","app_server_version":"1","installation_id":"0f6d1f3c-51a6-4b5e-9d3b-0d6f2f3f8a11"}`, 200, backend.BadRequest, "trimmed"},
		{"empty", 0, nil, `{"name":"","os":"linux","arch":"x86_64","app_server_version":"1","installation_id":"x"}`, 422, backend.BadRequest, "name"},
		{"no JSON", 0, nil, `name=n`, 422, backend.BadRequest, "body"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, backend.Options{Profile: tt.profile})
			if tt.do != nil {
				tt.do(b)
			}
			var a fakehost.Answer
			var err error
			if tt.body == "" {
				a, err = b.host.Enroll(b.ctx)
			} else {
				a, err = b.host.Post(b.ctx, b.url+backend.EnrollPath, tt.body)
			}
			if err != nil || a.Status != tt.wantStatus {
				t.Errorf("got status %d, %v, want %d", a.Status, err, tt.wantStatus)
			}
			b.wantOne(tt.wantKind, tt.wantSay)
		})
	}
}

// wantOne expects violations of one kind that say something, or none if kind
// is "".
func (b *bench) wantOne(kind backend.ViolationKind, say string) {
	b.t.Helper()
	got := b.Violations()
	if kind == "" {
		b.Verify(b.t)
		return
	}
	if len(got) == 0 {
		b.t.Errorf("no violation, want %q with %q", kind, say)
	}
	said := false
	for _, v := range got {
		said = said || strings.Contains(v.Text, say)
		if v.Kind != kind {
			b.t.Errorf("got the violation %v, want only %q", v, kind)
		}
	}
	if len(got) > 0 && !said {
		b.t.Errorf("got the violations %v, want one that says %q", got, say)
	}
}

func TestViolationsOfOtherRequests(t *testing.T) {
	b := newBench(t, backend.Options{Profile: backend.Profile2})
	b.enroll()
	if a, err := b.host.Refresh(b.ctx); err != nil || a.Status != 404 {
		t.Errorf("a refresh in profile 2: status %d, %v, want 404", a.Status, err)
	}
	b.wantOne(backend.UnaskedRefresh, "refresh")

	b = newBench(t, backend.Options{})
	if a, err := b.host.Post(b.ctx, b.url+"/elsewhere", "{}"); err != nil || a.Status != 404 {
		t.Errorf("elsewhere: status %d, %v, want 404", a.Status, err)
	}
	b.wantOne(backend.BadRequest, "/elsewhere")
}

func TestViolationsOfUpgrades(t *testing.T) {
	set := func(name, value string) func(*bench) {
		return func(b *bench) {
			b.host.Change = func(h http.Header) {
				if h.Del(name); value != "" {
					h[http.CanonicalHeaderKey(name)] = []string{value}
				}
			}
		}
	}
	tests := []struct {
		name       string
		o          backend.Options
		do         func(*bench)
		wantStatus int
		wantSay    string
	}{
		{"no server", backend.Options{}, set("X-Codex-Server-Id", ""), 400, "x-codex-server-id"},
		{"no name", backend.Options{}, set("X-Codex-Name", ""), 400, "x-codex-name"},
		{"name as it is", backend.Options{}, set("X-Codex-Name", "workshop!"), 101, "base64"},
		{"name without padding", backend.Options{}, set("X-Codex-Name", "YWI"), 101, "base64"},
		{"another name", backend.Options{}, set("X-Codex-Name", "b3RoZXI="), 101, "name of the enrollment"},
		{"version", backend.Options{}, set("X-Codex-Protocol-Version", "2"), 400, "x-codex-protocol-version"},
		{"origin", backend.Options{}, set("Origin", "http://localhost"), 400, "Origin"},
		{"subprotocol", backend.Options{}, set("Sec-Websocket-Protocol", "x"), 400, "Sec-WebSocket-Protocol"},
		{"account beside a server token", backend.Options{}, set("Chatgpt-Account-Id", "a"), 400, "chatgpt-account-id"},
		{"no account without one", backend.Options{NoServerToken: true}, set("Chatgpt-Account-Id", ""), 400, "chatgpt-account-id"},
		{"no installation", backend.Options{}, set("X-Codex-Installation-Id", ""), 400, "x-codex-installation-id"},
		{"another installation", backend.Options{}, set("X-Codex-Installation-Id", "1f6d1f3c-51a6-4b5e-9d3b-0d6f2f3f8a11"), 101, "x-codex-installation-id"},
		{"installation in profile 2", backend.Options{Profile: backend.Profile2}, set("X-Codex-Installation-Id", "x"), 400, "x-codex-installation-id"},
		{"no token", backend.Options{}, set("Authorization", ""), 400, "authorization"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.o)
			b.enroll()
			tt.do(b)
			sock, a, _ := b.host.Dial(b.ctx)
			if sock != nil {
				defer sock.Close()
			}
			if a.Status != tt.wantStatus {
				t.Errorf("got status %d, want %d", a.Status, tt.wantStatus)
			}
			b.wantOne(backend.BadUpgrade, tt.wantSay)
		})
	}
	t.Run("cursor", func(t *testing.T) {
		b := newBench(t, backend.Options{})
		b.host.Cursor = "not ours"
		b.dial()
		b.wantOne(backend.BadCursor, "not ours")
	})
	t.Run("no WebSocket", func(t *testing.T) {
		b := newBench(t, backend.Options{})
		b.enroll()
		b.host.Change = func(h http.Header) { h.Set("Sec-Websocket-Version", "12") }
		if _, err := b.host.Post(b.ctx, b.url+backend.UpgradePath, "{}"); err != nil {
			t.Fatal(err)
		}
		b.wantOne(backend.BadUpgrade, "x-codex-server-id")
	})
	t.Run("segment in profile 2", func(t *testing.T) {
		b := newBench(t, backend.Options{Profile: backend.Profile2})
		sock := b.dial()
		c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
		b.send(c, initialize)
		b.must(sock.WriteMessage(1, fakehost.Cut("c1", "s1", 1, fakehost.Padded(250<<10))[0]))
		b.flush()
		b.wantOne(backend.BadChunk, "segment")
	})
}

// TestVerify reports what is not expected, and what is and did not come.
func TestVerify(t *testing.T) {
	b := newBench(t, backend.Options{})
	sock := b.dial()
	b.must(sock.Write("[]"))
	b.flush()
	for _, tt := range []struct {
		name     string
		expected []backend.ViolationKind
		want     int
	}{
		{"nothing expected", nil, 1},
		{"expected", []backend.ViolationKind{backend.BadFrame}, 0},
		{"one missing", []backend.ViolationKind{backend.BadFrame, backend.SeqGap}, 1},
		{"another one", []backend.ViolationKind{backend.SeqGap}, 2},
	} {
		r := &reporter{}
		b.Verify(r, tt.expected...)
		if len(r.said) != tt.want {
			t.Errorf("%s: got the errors %q, want %d", tt.name, r.said, tt.want)
		}
	}
}

type reporter struct{ said []string }

func (*reporter) Helper() {}
func (r *reporter) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}
