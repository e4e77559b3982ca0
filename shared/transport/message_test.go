package transport

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestPeek(t *testing.T) {
	for _, tt := range []struct {
		name, in   string
		kind       Kind
		id, method string
		code       int // of the error; 0: none
	}{
		{"request", `{"jsonrpc":"2.0","id":1,"method":"m","params":{}}`, Request, "1", "m", 0},
		{"id last", `{"method":"m","params":{"id":2,"a":[{}]},"id":"x"}`, Request, `"x"`, "m", 0},
		{"notification", `{"method":"m","params":[1,{"id":3}]}`, Notification, "", "m", 0},
		{"null id is a notification", `{"id":null,"method":"m"}`, Notification, "", "m", 0},
		{"response", `{"id":1.0,"result":null}`, Response, "1.0", "", 0},
		{"response, id last", `{"result":{"method":"x"},"id":7}`, Response, "7", "", 0},
		{"error", `{"id":"a","error":{"code":1,"message":""}}`, ErrorResponse, `"a"`, "", 0},
		{"error to nobody", `{"id":null,"error":{"code":1,"message":""}}`, ErrorResponse, "", "", 0},
		{"white space", " \t\r\n{ \"id\" : -5 , \"method\" : \"m\" } \n", Request, "-5", "m", 0},
		{"big id", `{"id":123456789012345678901234567890,"method":"m"}`, Request, "123456789012345678901234567890", "m", 0},
		{"escaped key", `{"\u0069d":1,"m\u0065thod":"m"}`, Request, "1", "m", 0},
		{"escaped method", `{"id":1,"method":"a\u002fb"}`, Request, "1", "a/b", 0},
		{"quotes in strings", `{"params":"\\\"}","id":"\"","method":"m"}`, Request, `"\""`, "m", 0},
		{"empty", ``, 0, "", "", CodeParseError},
		{"text", `hello`, 0, "", "", CodeParseError},
		{"string", `"hello"`, 0, "", "", CodeInvalidRequest},
		{"batch", `[{"id":1,"method":"m"}]`, 0, "", "", CodeInvalidRequest},
		{"nothing", `{}`, 0, "", "", CodeInvalidRequest},
		{"only an id", `{"id":1}`, 0, "", "", CodeInvalidRequest},
		{"result without id", `{"result":1}`, 0, "", "", CodeInvalidRequest},
		{"object id", `{"id":{},"method":"m"}`, 0, "", "", CodeInvalidRequest},
		{"bool id", `{"id":true,"method":"m"}`, 0, "", "", CodeInvalidRequest},
		{"method is a number", `{"id":1,"method":2}`, 0, "", "", CodeInvalidRequest},
		{"cut", `{"id":1,"params":[`, 0, "", "", CodeParseError},
		{"cut in a string", `{"id":"1`, 0, "", "", CodeParseError},
		{"bad number", `{"id":01,"method":"m"}`, 0, "", "", CodeParseError},
		{"no colon", `{"id" 1}`, 0, "", "", CodeParseError},
		{"text behind", `{"method":"m"} x`, 0, "", "", CodeParseError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Peek([]byte(tt.in))
			if tt.code != 0 {
				e, ok := err.(*PeekError)
				if !ok || e.Code != tt.code {
					t.Errorf("Peek(%s) = %+v, %v; want code %d", tt.in, m, err, tt.code)
				}
				return
			}
			if err != nil || m.Kind != tt.kind || string(m.ID) != tt.id || string(m.Method) != tt.method {
				t.Errorf("Peek(%s) = %v, id %s, method %s, %v; want %v, %s, %s", tt.in, m.Kind, m.ID, m.Method, err, tt.kind, tt.id, tt.method)
			}
			if len(m.ID) > 0 && tt.in[m.IDAt:m.IDAt+len(m.ID)] != tt.id {
				t.Errorf("IDAt is %d", m.IDAt)
			}
			if again, err := Inspect([]byte(tt.in)); err != nil || again.Kind != m.Kind || !bytes.Equal(again.ID, m.ID) {
				t.Errorf("Inspect sees %+v, %v", again, err)
			}
		})
	}
}

func TestInspectRefusesWhatTwoReadersMaySeeDifferently(t *testing.T) {
	for _, tt := range []struct {
		in   string
		code int
	}{
		{`{"id":1,"id":2,"method":"m"}`, CodeInvalidRequest},
		{`{"id":1,"method":"m","\u006dethod":"n"}`, CodeInvalidRequest},
		{`{"id":1,"result":1,"result":2}`, CodeInvalidRequest},
		{`{"id":1,"ID":2,"method":"m"}`, CodeInvalidRequest},
		{`{"Id":2,"method":"m"}`, CodeInvalidRequest},
		{`{"id":1,"method":"m","paramſ":{}}`, CodeInvalidRequest},
		{`{"id":1,"method":"m","params":{]}`, CodeParseError},
		{`{"id":1,"method":"m",}`, CodeParseError},
	} {
		_, err := Inspect([]byte(tt.in))
		if e, ok := err.(*PeekError); !ok || e.Code != tt.code {
			t.Errorf("Inspect(%s): %v, want code %d", tt.in, err, tt.code)
		}
	}
}

func TestFind(t *testing.T) {
	const in = `{"a":1,"p":{"x":[{}],"_m\u0065ta":{"t":"v"}}}`
	start, end, ok := Find([]byte(in), "p", "_meta", "t")
	if !ok || in[start:end] != `"v"` {
		t.Errorf("Find = %d, %d, %v", start, end, ok)
	}
	for _, path := range [][]string{{"b"}, {"a", "b"}, {"p", "_meta", "u"}} {
		if _, _, ok := Find([]byte(in), path...); ok {
			t.Errorf("Find(%q) found something", path)
		}
	}
	if got := Field([]byte(in), "a"); string(got) != "1" {
		t.Errorf("Field = %s", got)
	}
}

func TestFindOnlyRefusesWhatTwoReadersMaySeeDifferently(t *testing.T) {
	path := []string{"p", "id"}
	for _, tt := range []struct{ in, want string }{
		{`{"p" : {"x":1, "id" :"v"}, "q":{"id":1}}`, `"v"`},
		{`{"p":{"x":{"id":1}}}`, ""},
		{`{"q":{"id":1}}`, ""},
		{`{"p":[1]}`, ""},
		{`{"p":{"id":1,"id":2}}`, "refused"},
		{`{"p":{"id":1,"\u0069d":2}}`, "refused"},
		{`{"p":{"id":1,"ID":2}}`, "refused"},
		{`{"p":{"Id":2}}`, "refused"},
		{`{"p":{"id":1},"p":{}}`, "refused"},
		{`{"p":{"id":1},"P":{"id":2}}`, "refused"},
	} {
		got := ""
		start, end, ok, err := FindOnly([]byte(tt.in), path...)
		if e, is := err.(*PeekError); is && e.Code == CodeInvalidRequest && !ok {
			got = "refused"
		} else if err != nil {
			t.Errorf("FindOnly(%s): %v", tt.in, err)
		} else if ok {
			got = tt.in[start:end]
		}
		if got != tt.want {
			t.Errorf("FindOnly(%s): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestAppendError(t *testing.T) {
	got := AppendError([]byte("x"), []byte(`"a"`), CodeOverloaded, OverloadedText)
	if want := `x{"jsonrpc":"2.0","id":"a","error":{"code":-32001,"message":"Server overloaded; retry later."}}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := AppendError(nil, nil, -1, "a\"\n<"); !json.Valid(got) || !bytes.Contains(got, []byte(`"id":null`)) {
		t.Errorf("got %s", got)
	}
}

// FuzzPeek compares with encoding/json: what Inspect accepts is JSON with that
// id and method, and what Peek returns lies inside the payload.
func FuzzPeek(f *testing.F) {
	for _, s := range []string{`{"id":1,"method":"m"}`, `{"\u0069d":"\"","result":[]}`, `{"method":"m","id":null}`, `[`, `{"id":1e5,"error":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := Peek(p)
		if err == nil && len(m.ID) > 0 && !bytes.Equal(p[m.IDAt:m.IDAt+len(m.ID)], m.ID) {
			t.Errorf("Peek(%q): id %q is not at %d", p, m.ID, m.IDAt)
		}
		if m, err = Inspect(p); err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(p, &want); err != nil {
			t.Fatalf("Inspect accepts %q, encoding/json does not: %v", p, err)
		}
		if id := want["id"]; string(id) != string(m.ID) && string(id) != "null" {
			t.Errorf("Inspect(%q): id %q, encoding/json sees %q", p, m.ID, id)
		}
		var method string
		if want["method"] != nil && json.Unmarshal(want["method"], &method) == nil && method != string(m.Method) {
			t.Errorf("Inspect(%q): method %q, encoding/json sees %q", p, m.Method, method)
		}
	})
}

func BenchmarkPeek(b *testing.B) {
	p := []byte(`{"jsonrpc":"2.0","id":123456789012,"method":"echo","params":{"pad":"xxxxxxxxxxxxxxxxxxxxxxxxxx"}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Peek(p); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPeekDoesNotAllocate(t *testing.T) {
	p := []byte(`{"jsonrpc":"2.0","id":123456789012,"method":"echo","params":{"pad":"x"}}`)
	if n := testing.AllocsPerRun(100, func() { _, _ = Peek(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
