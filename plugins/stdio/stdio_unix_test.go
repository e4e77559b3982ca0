//go:build unix

package stdio

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugin-sdk/pluginsdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A terminal is the test's ends of the transport's pipes.
type terminal struct {
	in  *os.File
	out *bufio.Reader
}

// params passes a pair of pipes, as the host does.
func params(t *testing.T, config string) (pluginsdk.StartParams, terminal) {
	t.Helper()
	pipe := func() (*os.File, *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	// The transport owns what it inherits: it gets a descriptor of its own.
	give := func(f *os.File) int {
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		return fd
	}
	inR, inW := pipe()
	outR, outW := pipe()
	t.Cleanup(func() { _, _ = inW.Close(), outR.Close() })
	_ = outR.SetReadDeadline(time.Now().Add(pluginsdktest.Timeout))
	return pluginsdk.StartParams{
		Config:    json.RawMessage(config),
		Inherited: []pluginsdk.Inherited{{Name: "stdin", FD: give(inR)}, {Name: "stdout", FD: give(outW)}},
	}, terminal{inW, bufio.NewReader(outR)}
}

func (tm terminal) write(t *testing.T, text string) {
	t.Helper()
	if _, err := tm.in.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (tm terminal) line(t *testing.T) string {
	t.Helper()
	s, err := tm.out.ReadString('\n')
	if err != nil {
		t.Fatalf("reading what the transport wrote: %v", err)
	}
	return strings.TrimSuffix(s, "\n")
}

func TestLinesBothWays(t *testing.T) {
	p, tm := params(t, `{}`)
	h := pluginsdktest.Start(t, New(), p)
	id, o := h.NextOpened()
	if o.ResumeKey != "stdio" || !o.Lossless || o.Peer.RemoteAddr != "stdio" {
		t.Errorf("opened %+v", o)
	}
	tm.write(t, "one\n\ntwo\r\n")
	if got, cursor := h.NextCursor(id); string(got) != "one" || cursor != "4" {
		t.Errorf("got %q at %q", got, cursor)
	}
	if got, cursor := h.NextCursor(id); string(got) != "two" || cursor != "10" {
		t.Errorf("got %q at %q", got, cursor)
	}
	h.Send(id, []byte("three\nfour"))
	last := h.Send(id, bytes.Repeat([]byte("x"), 1<<20))
	if got := tm.line(t); got != "three four" {
		t.Errorf("got %q", got)
	}
	if got := tm.line(t); len(got) != 1<<20 {
		t.Errorf("got %d bytes", len(got))
	}
	h.NextAcked(id, last)
}

func TestContentLength(t *testing.T) {
	p, tm := params(t, `{"framing":"content-length"}`)
	h := pluginsdktest.Start(t, New(), p)
	id, _ := h.NextOpened()
	tm.write(t, "Content-Length: 3\r\n\r\na\nb")
	if got := h.NextReceived(id); string(got) != "a\nb" {
		t.Errorf("got %q", got)
	}
	h.Send(id, []byte("c\nd"))
	if got := tm.line(t) + "\n" + tm.line(t) + "\n" + tm.line(t); got != "Content-Length: 3\r\n\r\nc" {
		t.Errorf("got %q", got)
	}
}

func TestWhatCannotBeDeliveredIsAnswered(t *testing.T) {
	p, tm := params(t, `{"max_message_bytes":10}`)
	h := pluginsdktest.Start(t, New(), p)
	id, _ := h.NextOpened()
	tm.write(t, strings.Repeat("x", 11)+"\n\xff\xfe\nok\n")
	if got := h.NextRejected(id); got != (pluginsdk.Rejection{Cursor: "12", Text: "message of 12 bytes; the limit is 10 bytes"}) {
		t.Errorf("got %+v", got)
	}
	if got := h.NextRejected(id); got != (pluginsdk.Rejection{Cursor: "15", Text: "Parse error: not UTF-8", Unparsable: true}) {
		t.Errorf("got %+v", got)
	}
	if got := h.NextReceived(id); string(got) != "ok" {
		t.Errorf("got %q", got)
	}
}

// TestAnOverlongFrameWithALengthIsTheEnd: its end may be as far away as its peer
// likes, and the connection ends with the error.
func TestAnOverlongFrameWithALengthIsTheEnd(t *testing.T) {
	p, tm := params(t, `{"framing":"content-length","max_message_bytes":10}`)
	h := pluginsdktest.Start(t, New(), p)
	id, _ := h.NextOpened()
	tm.write(t, "Content-Length: 90000\r\n\r\n"+strings.Repeat("x", 5000))
	if got := h.NextRejected(id); got.Text != "message of 90000 bytes; the limit is 10 bytes" {
		t.Errorf("got %+v", got)
	}
	h.NextFinished(id)
}

func TestEndOfInput(t *testing.T) {
	p, tm := params(t, `{}`)
	h := pluginsdktest.Start(t, New(), p)
	id, _ := h.NextOpened()
	tm.write(t, "last")
	_ = tm.in.Close()
	if got := h.NextReceived(id); string(got) != "last" {
		t.Errorf("got %q", got)
	}
	h.NextFinished(id)
	h.Send(id, []byte("answer"))
	h.Close(id, pluginsdk.CloseReason{Code: pluginsdk.CloseNormal, Text: "end of input"})
	if got := tm.line(t); got != "answer" {
		t.Errorf("got %q", got)
	}
	if r := h.NextClosed(id); r.Code != pluginsdk.CloseNormal {
		t.Errorf("closed with %v", r)
	}
}

func TestResumesWhereTheLastProcessEnded(t *testing.T) {
	p, tm := params(t, `{}`)
	p.Resume = []pluginsdk.Resume{{Conn: 1, Key: "stdio", Cursor: "100", NextSeq: 7}}
	h := pluginsdktest.Start(t, New(), p)
	id, o := h.NextOpened()
	if id != 1 || o.ResumeKey != "stdio" {
		t.Errorf("opened %d, %+v", id, o)
	}
	tm.write(t, "next\n")
	if got, cursor := h.NextCursor(id); string(got) != "next" || cursor != "105" {
		t.Errorf("got %q at %q", got, cursor)
	}
	if seq := h.Send(id, []byte("x")); seq != 7 {
		t.Errorf("number %d", seq)
	}
	h.NextAcked(id, 7)
}

func TestStopsWhileItReads(t *testing.T) {
	p, _ := params(t, `{}`)
	h := pluginsdktest.Start(t, New(), p)
	h.NextOpened()
	h.Stop() // fails the test if it does not return
}

func TestBadConfig(t *testing.T) {
	for config, want := range map[string]string{
		`{"framing":"xml"}`:               `framing "xml", want "ndjson" or "content-length"`,
		`{"max_message_bytes":-1}`:        "max_message_bytes is -1, want 1 to the host's 67108864",
		`{"max_message_bytes":999999999}`: "max_message_bytes is 999999999",
		`{"colour":1}`:                    `unknown field "colour"`,
	} {
		p, _ := params(t, config)
		err := pluginsdktest.Serve(t, New()).TryStart(p)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
		for _, f := range p.Inherited { // nobody took them
			_ = syscall.Close(f.FD)
		}
	}
}
