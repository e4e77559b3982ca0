package load

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a WebSocket server that gives every connection to handle.
func serve(t *testing.T, handle func(*websocket.Conn)) string {
	t.Helper()
	var upgrader websocket.Upgrader
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		handle(conn)
	}))
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

// answering is a server that sends what answers makes of each request.
func answering(t *testing.T, answers func(n int, answer []byte) [][]byte) string {
	return serve(t, func(conn *websocket.Conn) {
		for n := 0; ; n++ {
			_, request, err := conn.ReadMessage()
			if err != nil {
				return
			}
			answer := bytes.Replace(request, []byte(`"method":"echo","params"`), []byte(`"result"`), 1)
			for _, a := range answers(n, answer) {
				if conn.WriteMessage(websocket.TextMessage, a) != nil {
					return
				}
			}
		}
	})
}

func echo(_ int, answer []byte) [][]byte { return [][]byte{answer} }

func TestRunCountsEveryAnswer(t *testing.T) {
	for _, size := range []int{100, 70_000} {
		r, err := Run(t.Context(), Options{URL: answering(t, echo), Connections: 4, Window: 3, Size: size,
			Warmup: 10 * time.Millisecond, Duration: 200 * time.Millisecond, Verify: true, Processes: []int{os.Getpid()}})
		if err != nil {
			t.Fatal(err)
		}
		if r.Answers == 0 || r.Errors+r.Corrupt+r.Unexpected+r.Unanswered != 0 {
			t.Errorf("%d bytes: got %d answers, %d errors, %d corrupt, %d unexpected, %d unanswered; want only answers",
				size, r.Answers, r.Errors, r.Corrupt, r.Unexpected, r.Unanswered)
		}
		if got, want := r.Throughput, float64(r.Answers)/r.Elapsed.Seconds(); got != want || r.Latency.Quantile(0.5) <= 0 {
			t.Errorf("got %v answers a second and a median of %v, want %v and more than 0", got, r.Latency.Quantile(0.5), want)
		}
	}
}

func TestRunFindsFaults(t *testing.T) {
	tests := []struct {
		name    string
		answers func(n int, answer []byte) [][]byte
		faults  func(Result) uint64
	}{
		{"a byte is wrong", func(n int, a []byte) [][]byte { a[len(a)-5] ^= 1; return [][]byte{a} }, func(r Result) uint64 { return r.Corrupt }},
		{"an answer comes twice", func(n int, a []byte) [][]byte {
			if n == 3 {
				return [][]byte{a, a}
			}
			return [][]byte{a}
		}, func(r Result) uint64 { return r.Unexpected }},
		{"an error", func(n int, a []byte) [][]byte {
			return [][]byte{bytes.Replace(a, []byte(`"result"`), []byte(`"error"`), 1)}
		}, func(r Result) uint64 { return r.Errors }},
		{"another id", func(n int, a []byte) [][]byte {
			if n == 3 {
				return [][]byte{[]byte(`{"id":7,"result":1}`), a}
			}
			return [][]byte{a}
		}, func(r Result) uint64 { return r.Unexpected }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Run(t.Context(), Options{URL: answering(t, tt.answers), Connections: 1, Window: 2,
				Warmup: time.Nanosecond, Duration: 100 * time.Millisecond, Verify: true})
			if err != nil || tt.faults(r) == 0 {
				t.Errorf("the fault was not found: %+v, %v", r.Unexpected, err)
			}
		})
	}
}

func TestRunIgnoresNotificationsAndPings(t *testing.T) {
	url := serve(t, func(conn *websocket.Conn) {
		for {
			_, request, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if conn.WriteControl(websocket.PingMessage, []byte("p"), time.Now().Add(time.Second)) != nil ||
				conn.WriteMessage(websocket.TextMessage, []byte(`{"method":"log"}`)) != nil {
				return
			}
			w, err := conn.NextWriter(websocket.TextMessage)
			if err != nil {
				return
			}
			// More than the write buffer: this comes in several fragments.
			_, _ = w.Write(bytes.Replace(request, []byte(`"method":"echo","params"`), []byte(`"result"`), 1))
			_ = w.Close()
		}
	})
	r, err := Run(t.Context(), Options{URL: url, Connections: 2, Window: 2, Size: 20_000, Verify: true,
		Warmup: time.Nanosecond, Duration: 100 * time.Millisecond})
	if err != nil || r.Answers == 0 || r.Unexpected+r.Corrupt+r.Errors != 0 {
		t.Errorf("got %d answers, %d unexpected, %d corrupt, %d errors, %v; want only answers", r.Answers, r.Unexpected, r.Corrupt, r.Errors, err)
	}
}

func TestRunReportsTheServersClose(t *testing.T) {
	url := serve(t, func(conn *websocket.Conn) {
		_, _, _ = conn.ReadMessage()
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1013, "try later"), time.Now().Add(time.Second))
		_, _, _ = conn.ReadMessage() // until the peer has gone
	})
	_, err := Run(t.Context(), Options{URL: url, Connections: 1, Window: 1})
	if err == nil || !strings.Contains(err.Error(), "1013 try later") {
		t.Errorf("got %v, want the close code and text", err)
	}
}

// An open loop must not wait for a server that pauses: the requests that were
// due meanwhile are late, all of them.
func TestOpenLoopCountsThePause(t *testing.T) {
	const pauseLength = 300 * time.Millisecond
	var paused atomic.Bool
	url := answering(t, func(n int, a []byte) [][]byte {
		if n == 100 && paused.CompareAndSwap(false, true) {
			time.Sleep(pauseLength) // the fault that is tested, not a wait
		}
		return [][]byte{a}
	})
	r, err := Run(t.Context(), Options{URL: url, Connections: 1, Window: 4, Rate: 500,
		Warmup: time.Nanosecond, Duration: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if r.Answers < 400 || r.Answers > 520 {
		t.Errorf("got %d answers in 1 s at 500 a second", r.Answers)
	}
	// 150 of 500 requests were due in the pause; a closed loop would see 4.
	if late := r.Latency.Quantile(0.85); late < pauseLength/10 {
		t.Errorf("got p85 %v, want at least a tenth of the pause of %v", late, pauseLength)
	}
}

func TestStalledPeersSendUntilTheServerTakesNoMore(t *testing.T) {
	r, err := Run(t.Context(), Options{URL: answering(t, echo), Connections: 2, Window: 1, Size: 1000, Stalled: 2, StalledMax: 64 << 20,
		Warmup: time.Nanosecond, Duration: 500 * time.Millisecond})
	if err != nil || r.Answers == 0 {
		t.Fatalf("got %d answers, %v", r.Answers, err)
	}
	if r.StalledBytes < 100<<10 || r.StalledBytes >= 128<<20 {
		t.Errorf("stalled peers sent %d bytes, want what socket buffers hold", r.StalledBytes)
	}
}

func TestIdleConnectionsStayOpen(t *testing.T) {
	closing := make(chan struct{})
	url := serve(t, func(conn *websocket.Conn) {
		select {
		case <-closing:
		default:
			_, _, _ = conn.ReadMessage()
		}
	})
	idle, err := OpenIdle(t.Context(), url, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if alive := idle.Alive(); alive != 100 {
		t.Errorf("got %d of 100 connections alive", alive)
	}
	close(closing)
	if gone, err := OpenIdle(t.Context(), url, 1); err != nil {
		t.Error(err)
	} else {
		defer gone.Close()
		if err := gone.sockets[0].conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := gone.sockets[0].conn.Read(make([]byte, 1)); err == nil {
			t.Error("the server's close was not seen")
		}
	}
}

func TestDialRefusals(t *testing.T) {
	refusing := httptest.NewServer(http.NotFoundHandler())
	defer refusing.Close()
	for _, tt := range []struct{ name, url, want string }{
		{"another scheme", "http://127.0.0.1:1", "want ws:// or unix://"},
		{"no upgrade", "ws" + strings.TrimPrefix(refusing.URL, "http"), "404"},
		{"nobody there", "unix:///nonexistent/socket", "connecting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Dial(context.Background(), tt.url, nil, 0)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestReadMemorySeesThisProcess(t *testing.T) {
	m, err := ReadMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if m.Processes == 0 {
		t.Skip("no /proc here")
	}
	if m.RSS < 1<<20 || m.PSS > m.RSS {
		t.Errorf("got RSS %d and PSS %d of a test program", m.RSS, m.PSS)
	}
}

func FuzzReadAnswer(f *testing.F) {
	for _, s := range []string{`{"id":100000000001,"result":{}}`, `{"result":1,"id": 5}`, `{"id":`, `{"id":"x"}`, `{"id":99999999999999999999}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if a := readAnswer(message); !a.hasID && (a.id != 0 || a.success) {
			t.Errorf("no id in %q, but %+v", message, a)
		}
	})
}
