// Package load drives a server that speaks JSON-RPC over WebSocket, and
// measures its throughput, latency, CPU and memory.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Options says what to do. Only URL is required.
type Options struct {
	URL         string        // ws://HOST:PORT/PATH or unix://PATH
	Header      http.Header   // added to every upgrade
	Connections int           // 0: 50
	Window      int           // requests outstanding per connection; 0: 16
	Size        int           // bytes of one request; 0: 100
	Method      string        // "": echo
	Rate        float64       // requests a second in all, in an open loop; 0: a closed loop
	Warmup      time.Duration // before the measured time; 0: 500 ms
	Duration    time.Duration // the measured time; 0: 3 s
	Verify      bool          // check that every answer carries the padding of its request
	Stalled     int           // further connections, which send and never read
	StalledSize int           // bytes of each of their requests; 0: Size
	StalledMax  int           // bytes that each of them sends at most; 0: 8 MiB
	Processes   []int         // processes of the server, accounted with their descendants
}

func (o Options) withDefaults() Options {
	o.Connections = cmp.Or(o.Connections, 50)
	o.Window = cmp.Or(o.Window, 16)
	o.Size = cmp.Or(o.Size, 100)
	o.Method = cmp.Or(o.Method, "echo")
	o.Warmup = cmp.Or(o.Warmup, 500*time.Millisecond)
	o.Duration = cmp.Or(o.Duration, 3*time.Second)
	o.StalledSize = cmp.Or(o.StalledSize, o.Size)
	o.StalledMax = cmp.Or(o.StalledMax, 8<<20)
	return o
}

// Result is what a run measured. Counts and latency cover the measured time
// only; Unanswered and Unexpected cover the whole run.
type Result struct {
	Elapsed    time.Duration
	Answers    uint64  // with a result
	Throughput float64 // of them a second
	Errors     uint64  // answers with an error
	Corrupt    uint64  // answers without the whole padding, if Verify
	Unexpected uint64  // answers to nothing, or a second time to the same request
	Unanswered uint64  // requests that never got an answer
	Latency    Histogram

	ServerCPU time.Duration // of Processes and their descendants
	LoadCPU   time.Duration // of this process
	OtherCPU  time.Duration // of everything else: more than a few per cent disturbs the numbers
	Memory    Memory        // of Processes and their descendants, at the end of the measured time

	StalledClosed int   // stalled peers that the server closed
	StalledBytes  int64 // what they could send in all
}

// clock says whether the measured time is on.
type clock struct{ on atomic.Bool }

func (c *clock) measuring() bool { return c.on.Load() }

// dialsAtOnce bounds how many upgrades are under way: more than a listener's
// queue holds would be retried by the kernel after a second.
const dialsAtOnce = 32

// Run opens the connections, loads the server, and returns when every request
// has its answer. The error says what broke a connection.
func Run(ctx context.Context, o Options) (Result, error) {
	o = o.withDefaults()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sockets, err := dialAll(ctx, o, o.Connections, 16<<10)
	if err != nil {
		return Result{}, err
	}
	c := &clock{}
	peers := make([]*peer, len(sockets))
	for i, s := range sockets {
		peers[i] = newPeer(i, s, o, c)
	}
	// Readers and writers that block do not see the context: closing does it.
	unblock := context.AfterFunc(ctx, func() {
		for _, s := range sockets {
			_ = s.Close()
		}
	})
	defer unblock()

	stalled := newStalled()
	var running sync.WaitGroup
	running.Go(func() { stalled.run(ctx, o, cancel) })
	for _, p := range peers {
		running.Go(func() {
			err := error(nil)
			if o.Rate == 0 {
				err = p.start()
			}
			if err == nil {
				err = p.read(ctx, o.Rate == 0)
			}
			if err != nil {
				cancel(err) // the first one counts: what follows is its effect
			}
		})
	}
	pacing, stopPacing := context.WithCancel(ctx)
	if o.Rate > 0 {
		running.Go(func() { pace(pacing, o.Rate, peers, cancel) })
	}
	result, err := measure(ctx, o, c)
	stopPacing()
	for _, p := range peers {
		p.stop()
	}
	stalled.stop()
	running.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(err, cause)
	}
	var sum tally
	for _, p := range peers {
		sum.add(&p.tally)
		_ = p.socket.Close() // closed already, or all its answers are in
	}
	result.Latency, result.Answers = sum.latency, sum.latency.Count()
	result.Throughput = float64(result.Answers) / max(result.Elapsed.Seconds(), 1e-9)
	result.Errors, result.Corrupt = sum.errors, sum.corrupt
	result.Unexpected, result.Unanswered = sum.unexpected, sum.unanswered
	result.StalledClosed, result.StalledBytes = stalled.outcome()
	return result, err
}

// measure waits out the warm-up and the measured time, and accounts processes
// over the latter.
func measure(ctx context.Context, o Options, c *clock) (Result, error) {
	if err := pause(ctx, o.Warmup); err != nil {
		return Result{}, err
	}
	before, err := readUsage(o.Processes)
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	c.on.Store(true)
	err = pause(ctx, o.Duration)
	c.on.Store(false)
	result := Result{Elapsed: time.Since(began)}
	if err != nil {
		return result, err
	}
	after, err := readUsage(o.Processes)
	if err != nil {
		return result, err
	}
	result.ServerCPU = after.server - before.server
	result.LoadCPU = after.load - before.load
	result.OtherCPU = max(after.machine-before.machine-result.ServerCPU-result.LoadCPU, 0)
	result.Memory, err = ReadMemory(o.Processes...)
	return result, err
}

// pace sends requests at their times, in turn over all peers. A request that
// finds no slot waits, and the wait counts as its latency: a server that stops
// for a second has a second of late requests, not one.
func pace(ctx context.Context, rate float64, peers []*peer, fail context.CancelCauseFunc) {
	began := time.Now()
	for n := 0; ; {
		due := int(time.Since(began).Seconds() * rate)
		for ; n < due; n++ {
			if err := peers[n%len(peers)].send(time.Time{}); err != nil {
				fail(fmt.Errorf("peer %d: sending: %w", n%len(peers), err))
				return
			}
		}
		next := began.Add(time.Duration(float64(n+1) / rate * float64(time.Second)))
		if pause(ctx, time.Until(next)) != nil {
			return
		}
	}
}

// pause waits for d or the end of ctx, and returns its cause.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// dialAll opens n connections, or none.
func dialAll(ctx context.Context, o Options, n, readBuffer int) ([]*Socket, error) {
	sockets := make([]*Socket, n)
	errs := make([]error, dialsAtOnce)
	var next atomic.Int64
	var dialers sync.WaitGroup
	for d := range dialsAtOnce {
		dialers.Go(func() {
			for i := next.Add(1) - 1; int(i) < n && errs[d] == nil; i = next.Add(1) - 1 {
				sockets[i], errs[d] = Dial(ctx, o.URL, o.Header, readBuffer)
			}
		})
	}
	dialers.Wait()
	for _, err := range errs {
		if err == nil {
			continue
		}
		for _, s := range sockets {
			if s != nil {
				_ = s.Close() // the error that we return is the one that matters
			}
		}
		return nil, err
	}
	return sockets, nil
}
