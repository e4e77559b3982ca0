package pluginsdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/transporthost/transporthost/shared/rpc"
)

// LogLevelVariable names the environment variable with the level of the
// plugin's log ("trace" … "error"; default "info"), which the host sets to its
// own.
const LogLevelVariable = "TRANSPORTHOST_LOG_LEVEL"

// lastGrace is what Serve gets to return when the process must end. It is
// under the 2 s after which go-plugin's host side kills.
const lastGrace = 1500 * time.Millisecond

// errServeReturned is why a process ends whose transport has ended by itself.
var errServeReturned = errors.New("the transport has ended")

// Main runs t as a plugin process until the host ends it, and returns the exit
// status: the whole of a plugin's main is
//
//	func main() { os.Exit(pluginsdk.Main(mytransport.New())) }
//
// The process ends when the host asks for it, lets go of the link, or dies: the
// host holds the other end of stdin. Stdout belongs to the handshake; words go
// to [Host.Logger].
func Main(t Transport) int {
	name := filepath.Base(os.Args[0])
	if os.Getenv(rpc.CookieKey) != rpc.Handshake().MagicCookieValue {
		fmt.Fprintf(os.Stderr, "%s: this is a plugin of transporthost and not run by hand\n", name)
		fmt.Fprintln(os.Stderr, "put it into the plugin directory and see: transporthost plugins list")
		return 2
	}
	if os.Getenv("GOMAXPROCS") == "" {
		// A plugin hands every message to the host, and gets it from there: with
		// more than half of the machine each they wake each other's idle
		// processors more often, and move no more messages.
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
	log := hclog.New(&hclog.LoggerOptions{
		Name: strings.TrimPrefix(name, "transport-"), Output: os.Stderr, JSONFormat: true,
		Level: max(hclog.LevelFromString(os.Getenv(LogLevelVariable)), hclog.Trace),
	})
	return runPlugin(t, log, os.Stdin)
}

// runPlugin serves until the first of: the host asks, the link ends, the
// lifeline ends, SIGTERM, or Serve returns.
func runPlugin(t Transport, log hclog.Logger, lifeline io.Reader) int {
	p := newProcess(t, log)
	cfg, stop := p.server.ServeConfig()
	cfg.Logger = log

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	defer signal.Stop(term)

	go func() {
		_, _ = io.Copy(io.Discard, lifeline) // blocks until the host is gone; ends with the process
		cancel(ErrLinkClosed)
	}()
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-p.server.Done():
			cancel(ErrLinkClosed)
		case <-term:
			cancel(fmt.Errorf("%w: SIGTERM", ErrStopping))
		case <-ctx.Done():
		}
		_ = p.endWithin(ctx, lastGrace)
		stop()
	})
	watch.Go(func() { returnMemory(ctx) })
	watch.Go(func() {
		select {
		case <-p.over:
			cancel(errServeReturned)
		case <-ctx.Done():
		}
	})

	plugin.Serve(cfg)
	cancel(ErrStopping)
	watch.Wait()
	if !p.endWithin(ctx, lastGrace) {
		log.Error("the transport did not end in time")
		return 1
	}
	if err := p.outcome(); err != nil && errors.Is(context.Cause(ctx), errServeReturned) {
		log.Error("the transport failed", "error", err)
		return 1
	}
	return 0
}
