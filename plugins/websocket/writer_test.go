package websocket

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// tcpPair is two ends of one socket.
func tcpPair(t *testing.T) (one, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	one, err = net.Dial("tcp", l.Addr().String())
	if err == nil {
		other, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = one.Close()
		_ = other.Close()
	})
	return one, other
}

// discard reads all that comes, without allocating.
func discard(c net.Conn) {
	p := make([]byte, 64<<10)
	for {
		if _, err := c.Read(p); err != nil {
			return
		}
	}
}

// TestProgress cuts frames into parts of every kind.
func TestProgress(t *testing.T) {
	var frames []byte
	var ends, payloads []int // of messages: where they end, and their payload begins
	for _, n := range []int{0, 1, 125, 126, 0xffff, 0x10000, 300, 0} {
		frames = appendFrame(frames, websocket.PingMessage, []byte("ping"))
		frames = appendFrame(frames, websocket.TextMessage, make([]byte, n))
		ends, payloads = append(ends, len(frames)), append(payloads, len(frames)-n)
	}
	frames = appendFrame(frames, websocket.TextMessage, []byte("of this plugin's own"))
	frames = appendFrame(frames, websocket.CloseMessage, nil)
	want := func(out int) tally {
		var sum tally
		for i, end := range ends {
			if out >= end {
				sum.messages++
			}
			sum.bytes += max(0, min(out, end)-payloads[i])
		}
		return sum
	}
	for _, part := range []int{1, 2, 3, 5, 127, 4096, 0xffff, len(frames)} {
		p := progress{frames: frames, left: want(len(frames))}
		var sum tally
		for out := 0; out < len(frames); {
			n := min(part, len(frames)-out)
			out += n
			if sum.add(p.advance(n)); sum != want(out) {
				t.Fatalf("in parts of %d bytes: after %d of %d bytes %+v are out, want %+v", part, out, len(frames), sum, want(out))
			}
		}
	}
}

// TestLargeMessageIsReportedAsItLeaves: the host must see that a slow peer
// takes what it gets.
func TestLargeMessageIsReportedAsItLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, messages = 1 << 20, 3
		sock, peer := net.Pipe() // a write ends when it is read
		defer peer.Close()
		var got tally
		var wg sync.WaitGroup
		w := newWriter(sock, &buffers{}, &wg, func(messages, bytes int) { got.add(tally{messages, bytes}) })
		for range messages {
			w.message(make([]byte, size))
		}
		w.flush()
		read := 0
		for p := make([]byte, 10_000); read < messages*(size+maxFrameHeader); {
			n, err := peer.Read(p)
			if err != nil {
				t.Fatal(err)
			}
			read += n
			synctest.Wait()
			least := read - partBytes // all but the part that is being read
			if got.bytes < least-messages*maxFrameHeader || got.bytes > read || got.messages < least/(size+maxFrameHeader) || got.messages > read/(size+maxFrameHeader) {
				t.Fatalf("the peer has read %d bytes, and %+v are reported", read, got)
			}
		}
		if want := (tally{messages, messages * size}); got != want {
			t.Errorf("reported %+v, want %+v", got, want)
		}
		w.stop()
		wg.Wait()
	})
}

// TestReports: they are made one at a time, without the writer's lock, and add
// up, whoever writes.
func TestReports(t *testing.T) {
	sock, peer := tcpPair(t)
	go discard(peer)
	var wg sync.WaitGroup
	var reporting atomic.Bool
	var got tally
	var w *writer
	w = newWriter(sock, &buffers{}, &wg, func(messages, bytes int) {
		if !reporting.CompareAndSwap(false, true) {
			t.Error("two reports at a time")
		}
		w.flush() // whoever is told may call the writer
		got.add(tally{messages, bytes})
		reporting.Store(false)
	})
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for range 200 {
				w.control(websocket.PingMessage, nil)
				w.message(make([]byte, 50_000))
				w.flush()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		others.Wait()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the writer waits for itself")
	}
	wg.Wait()
	if want := (tally{800, 800 * 50_000}); got != want {
		t.Errorf("reported %+v, want %+v", got, want)
	}
	w.stop()
}

// TestClosingWaitsForNobody: TLS says goodbye before it closes, and this peer
// takes nothing.
func TestClosingWaitsForNobody(t *testing.T) {
	cert, key, _ := pair(t, t.TempDir(), "a")
	c, err := loadCertificate(tlsConfig{CertFile: cert, KeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		tests := []struct {
			name string
			end  func(*writer)
			most time.Duration
		}{
			{"fail", func(w *writer) { w.fail(errSilent) }, 0},
			{"stop", (*writer).stop, politeTime},
		}
		for _, tt := range tests {
			under, peer := net.Pipe()
			sock := tls.Server(under, &tls.Config{GetCertificate: c.current, MaxVersion: tls.VersionTLS12})
			client := tls.Client(peer, &tls.Config{InsecureSkipVerify: true})
			shaken := make(chan error, 1)
			go func() { shaken <- client.Handshake() }()
			if err := sock.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := <-shaken; err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			w := newWriter(sock, &buffers{}, &wg, func(int, int) {})
			began := time.Now()
			tt.end(w)
			if d := time.Since(began); d > tt.most {
				t.Errorf("%s took %v, want at most %v", tt.name, d, tt.most)
			}
			if _, err := io.Copy(io.Discard, peer); err != nil {
				t.Errorf("%s: the peer sees %v, want the end", tt.name, err)
			}
			_ = peer.Close()
		}
	})
}

// TestNothingFollowsACloseFrame (RFC 6455, section 5.5.1).
func TestNothingFollowsACloseFrame(t *testing.T) {
	sock, peer := tcpPair(t)
	var wg sync.WaitGroup
	w := newWriter(sock, &buffers{}, &wg, func(int, int) {})
	w.control(websocket.CloseMessage, nil)
	w.message([]byte("late"))
	w.control(websocket.PongMessage, nil)
	w.flush()
	w.stop()
	wg.Wait()
	got, err := io.ReadAll(peer)
	if want := appendFrame(nil, websocket.CloseMessage, nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the peer got %x, %v; want %x", got, err, want)
	}
}

// TestWriterAllocations: one for a batch, what gives the buffer back, and none
// for a message.
func TestWriterAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("pools drop what they are given")
	}
	sock, peer := tcpPair(t)
	go discard(peer)
	var wg sync.WaitGroup
	var got tally
	w := newWriter(sock, &buffers{}, &wg, func(messages, bytes int) { got.add(tally{messages, bytes}) })
	p := make([]byte, 100)
	batch := func() {
		for range 16 {
			w.message(p)
		}
		w.flush()
	}
	if n := testing.AllocsPerRun(1000, batch); n > 1 {
		t.Errorf("16 messages and a flush allocate %v times, want once", n)
	}
	wg.Wait()
	if want := (tally{1001 * 16, 1001 * 16 * 100}); got != want {
		t.Errorf("reported %+v, want %+v", got, want)
	}
	w.stop()
}

func BenchmarkMessageAndFlush(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer peer.Close()
	sock, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	go discard(peer)
	var wg sync.WaitGroup
	w := newWriter(sock, &buffers{}, &wg, func(int, int) {})
	p := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		w.message(p)
		w.flush()
	}
	w.stop()
	wg.Wait()
}
