package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func readAll(r *FrameReader) (frames []string, err error) {
	for {
		p, err := r.Next()
		var tooLarge *OversizeError
		if errors.As(err, &tooLarge) {
			frames = append(frames, fmt.Sprintf("oversize %d", tooLarge.Size))
			continue
		}
		if err != nil {
			return frames, err
		}
		frames = append(frames, string(p))
	}
}

func TestFrameReader(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, tt := range []struct {
		name    string
		framing Framing
		in      string
		want    []string
		err     string
	}{
		{"lines", NDJSON, "a\nb\r\n\n\r\nc", []string{"a", "b", "c"}, "EOF"},
		{"at the limit", NDJSON, strings.Repeat("y", 200) + "\r\nb\n", []string{strings.Repeat("y", 200), "b"}, "EOF"},
		{"over the limit", NDJSON, strings.Repeat("y", 201) + "\nb\n", []string{"oversize 202", "b"}, "EOF"},
		{"far over the limit", NDJSON, "a\n" + long + "\nb\n", []string{"a", "oversize 100001", "b"}, "EOF"},
		{"far over the limit, at the end", NDJSON, long, []string{"oversize 100000"}, "EOF"},
		{"headers", ContentLength, "Content-Length: 1\r\n\r\na" + "content-LENGTH:2\nContent-Type: x\n\nbc", []string{"a", "bc"}, "EOF"},
		{"empty frame", ContentLength, "Content-Length: 0\r\n\r\nContent-Length: 1\r\n\r\na", []string{"", "a"}, "EOF"},
		{"over the limit, with a length", ContentLength, "Content-Length: 201\r\n\r\n" + strings.Repeat("z", 201) + "Content-Length: 1\r\n\r\na", []string{"oversize 201", "a"}, "EOF"},
		{"cut", ContentLength, "Content-Length: 5\r\n\r\nab", nil, "unexpected EOF"},
		{"cut in the head", ContentLength, "Content-Le", nil, "unexpected EOF"},
		{"no length", ContentLength, "X: 1\r\n\r\n", nil, "content-length framing: no Content-Length header"},
		{"negative", ContentLength, "Content-Length: -1\r\n\r\n", nil, `content-length framing: Content-Length is "-1"`},
		{"huge", ContentLength, "Content-Length: 99999999999999999999\r\n\r\n", nil, `content-length framing: Content-Length is "99999999999999999999"`},
		{"ndjson instead", ContentLength, "{\"id\" 1}\n", nil, `content-length framing: "{\"id\" 1}" is no header; is the other side's framing ndjson?`},
	} {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, byte by byte %v", tt.name, slow), func(t *testing.T) {
				var src io.Reader = strings.NewReader(tt.in)
				if slow {
					src = iotest.OneByteReader(src)
				}
				r := NewFrameReader(src, tt.framing, 200)
				got, err := readAll(r)
				if fmt.Sprint(got) != fmt.Sprint(tt.want) || err.Error() != tt.err {
					t.Errorf("got %.300q, %v; want %.300q, %s", got, err, tt.want, tt.err)
				}
				if tt.err == "EOF" && strings.HasSuffix(tt.in, "\n") && r.Offset() != int64(len(tt.in)) {
					t.Errorf("offset %d, want %d", r.Offset(), len(tt.in))
				}
			})
		}
	}
}

// TestFramesComeBack: what is appended is read again, at its offsets.
func TestFramesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]Framing{NDJSON, ContentLength}).Draw(t, "framing")
		payloads := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 300), 0, 8).Draw(t, "payloads")
		var stream []byte
		var ends []int
		for _, p := range payloads {
			p[0] = '{' // a line is not empty
			stream = AppendFrame(stream, p, f)
			ends = append(ends, len(stream))
		}
		r := NewFrameReader(bytes.NewReader(stream), f, 1000)
		for i, p := range payloads {
			want := p
			if f == NDJSON {
				want = bytes.ReplaceAll(bytes.ReplaceAll(p, []byte("\n"), []byte(" ")), []byte("\r"), []byte(" "))
			}
			got, err := r.Next()
			if err != nil || !bytes.Equal(got, want) || r.Offset() != int64(ends[i]) {
				t.Fatalf("frame %d is %q, %v, at %d; want %q at %d", i, got, err, r.Offset(), want, ends[i])
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("behind the last frame: %v", err)
		}
	})
}

func FuzzFrameReader(f *testing.F) {
	f.Add([]byte("a\nb\r\n"), false)
	f.Add([]byte("Content-Length: 3\r\n\r\nabc"), true)
	f.Fuzz(func(t *testing.T, in []byte, length bool) {
		framing := NDJSON
		if length {
			framing = ContentLength
		}
		r := NewFrameReader(bytes.NewReader(in), framing, 50)
		for range len(in) + 2 {
			before := r.Offset()
			p, err := r.Next()
			if len(p) > 50 {
				t.Fatalf("a frame of %d bytes passed a limit of 50", len(p))
			}
			if r.Offset() < before || r.Offset() > int64(len(in)) {
				t.Fatalf("the offset went from %d to %d of %d", before, r.Offset(), len(in))
			}
			if err != nil && !errors.Is(err, ErrTooLarge) {
				return
			}
		}
		t.Fatal("the stream has no end")
	})
}
