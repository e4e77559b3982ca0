// Package stdio is the transport of the one peer at the host's stdin and
// stdout. The host keeps both and passes a pair of pipes, so that another
// process can go on where this one ended.
package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// resumeKey names the one connection.
const resumeKey = "stdio"

// A Transport is the stdio transport.
type Transport struct{}

var (
	_ pluginsdk.Transport = Transport{}
	_ pluginsdk.Resumer   = Transport{}
)

// New makes the transport.
func New() Transport { return Transport{} }

type config struct {
	Framing         pluginsdk.Framing `json:"framing"`
	MaxMessageBytes int               `json:"max_message_bytes"`
}

// Describe implements [pluginsdk.Transport].
func (Transport) Describe() pluginsdk.Description {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	return pluginsdk.Description{
		Name: "stdio", Version: version, Locality: pluginsdk.Local,
		Config: []pluginsdk.ConfigKey{
			{Name: "framing", Type: pluginsdk.TypeString, Allowed: []string{string(pluginsdk.NDJSON), string(pluginsdk.ContentLength)}, Help: "how messages are told apart; default ndjson"},
			{Name: "max_message_bytes", Type: pluginsdk.TypeNumber, Help: "default: the host's limit"},
		},
	}
}

// CanResume implements [pluginsdk.Resumer].
func (Transport) CanResume() {}

// Serve implements [pluginsdk.Transport].
func (Transport) Serve(ctx context.Context, host *pluginsdk.Host) error {
	params := host.Params()
	cfg := config{Framing: pluginsdk.NDJSON, MaxMessageBytes: params.MaxMessageBytes}
	if err := host.DecodeConfig(&cfg); err != nil {
		return err
	}
	if _, err := pluginsdk.ParseFraming(string(cfg.Framing)); err != nil {
		return fmt.Errorf("%w: %w", pluginsdk.ErrInvalidConfig, err)
	}
	if cfg.MaxMessageBytes < 1 || cfg.MaxMessageBytes > params.MaxMessageBytes {
		return fmt.Errorf("%w: max_message_bytes is %d, want 1 to the host's %d", pluginsdk.ErrInvalidConfig, cfg.MaxMessageBytes, params.MaxMessageBytes)
	}
	in, err := host.File("stdin")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := host.File("stdout")
	if err != nil {
		return err
	}
	defer out.Close()

	w := newWriter(out, cfg.Framing)
	var start int64 // of the input: what lies before it is the host's already
	if len(params.Resume) > 0 && params.Resume[0].Key == resumeKey {
		r := params.Resume[0]
		if r.Cursor != "" {
			if start, err = strconv.ParseInt(string(r.Cursor), 10, 64); err != nil {
				return fmt.Errorf("the cursor to resume from is %q: %w", r.Cursor, err)
			}
		}
		_, err = host.Adopt(r, w)
	} else {
		_, err = host.Open(pluginsdk.Opened{
			Peer: pluginsdk.Peer{RemoteAddr: "stdio"}, ResumeKey: resumeKey, Lossless: true,
		}, w)
	}
	if err != nil {
		return err
	}
	host.Ready("stdio://")

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.run(gctx) })
	g.Go(func() error {
		err := read(gctx, host, w, in, cfg, start)
		if err == nil {
			// The peer says no more, and still hears: the host closes the
			// connection when everything is answered, and the host's end is ours.
			w.conn.Finish()
			<-gctx.Done()
		}
		return err
	})
	g.Go(func() error {
		<-gctx.Done()
		// Whoever blocks on a pipe does not see gctx.
		_ = in.SetReadDeadline(time.Now())
		_ = out.SetWriteDeadline(time.Now())
		return nil
	})
	err = g.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// read delivers what comes in until its end, which is no error.
func read(ctx context.Context, host *pluginsdk.Host, w *writer, in *os.File, cfg config, start int64) error {
	r := pluginsdk.NewFrameReader(in, cfg.Framing, cfg.MaxMessageBytes)
	for {
		p, readErr := r.Next()
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		cursor := pluginsdk.Cursor(strconv.AppendInt(nil, start+r.Offset(), 10))
		tooLarge, oversize := errors.AsType[*pluginsdk.OversizeError](readErr)
		var err error
		switch {
		case oversize:
			err = w.conn.Reject(ctx, pluginsdk.Rejection{Cursor: cursor, Text: tooLarge.Error()})
		case readErr != nil:
			host.Logger().Error("reading stdin", "error", readErr)
			err = w.conn.Reject(ctx, pluginsdk.Rejection{Text: "Parse error: " + readErr.Error(), Unparsable: true})
		case !utf8.Valid(p):
			err = w.conn.Reject(ctx, pluginsdk.Rejection{Cursor: cursor, Text: "Parse error: not UTF-8", Unparsable: true})
		default:
			err = w.conn.DeliverAt(ctx, p, cursor)
		}
		switch {
		case errors.Is(err, pluginsdk.ErrConnClosed):
			return nil // the host has ended the connection
		case err != nil:
			return fmt.Errorf("delivering a message: %w", err)
		case readErr != nil && (!oversize || cfg.Framing == pluginsdk.ContentLength):
			// The stream cannot be understood any more, or not without reading as
			// much as its peer likes: it has had its error, and this is its end.
			return nil
		}
	}
}
