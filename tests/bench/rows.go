package main

import (
	"context"

	"github.com/transporthost/transporthost/tests/bench/servers"
	"github.com/transporthost/transporthost/tests/load"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// A row is one comparison. Its name is what -only matches.
type row struct {
	name    string
	measure func(b *laboratory, ctx context.Context, r row) ([]line, error)

	profile backend.Profile // of the relay, for rows that have one

	// For rows that load the host and a baseline alike:
	load     load.Options
	baseline servers.Style
	app      application  // of the host; "": the built-in echo
	numbers  []loadNumber // what to make of the results
}

// A loadNumber is made of the results of one round.
type loadNumber struct {
	what   string
	unit   string
	floor  floor
	of     func(r load.Result) float64      // absolute, of one server
	format string                           // of the absolute number
	both   func(host, base float64) float64 // what is compared with the floor
}

func throughput(atLeast float64) loadNumber {
	return loadNumber{what: "throughput", unit: "x", floor: floor{atLeast: atLeast}, format: "%.0f/s", both: ratio,
		of: func(r load.Result) float64 { return r.Throughput }}
}

func serverCPU(atMost float64) loadNumber {
	return loadNumber{what: "server CPU per message", unit: "x", floor: floor{atMost: atMost}, format: "%.1f µs", both: ratio,
		of: func(r load.Result) float64 { return ratio(microseconds(r.ServerCPU), float64(r.Answers)) }}
}

func addedMedian(atMost float64) loadNumber {
	return loadNumber{what: "added p50", unit: " µs", floor: floor{atMost: atMost}, format: "%.0f µs",
		both: func(host, base float64) float64 { return host - base },
		of:   func(r load.Result) float64 { return microseconds(r.Latency.Quantile(0.5)) }}
}

// tailLatency has no floor; it tells the reader what a ratio of medians hides.
func tailLatency() loadNumber {
	return loadNumber{what: "p99", unit: "x", format: "%.0f µs", both: ratio,
		of: func(r load.Result) float64 { return microseconds(r.Latency.Quantile(0.99)) }}
}

func shape(connections, window, size int) load.Options {
	return load.Options{Connections: connections, Window: window, Size: size}
}

// rows is the table. Floors are what a release must reach on two CPUs.
var rows = []row{
	{name: "50x16x100B vs plain", measure: (*laboratory).compare, load: shape(50, 16, 100), baseline: servers.Plain,
		numbers: []loadNumber{throughput(1.1), serverCPU(0.8), tailLatency()}},
	{name: "50x16x1KiB vs plain", measure: (*laboratory).compare, load: shape(50, 16, 1<<10), baseline: servers.Plain,
		numbers: []loadNumber{throughput(1.0), serverCPU(1.0)}},
	{name: "50x16x100B vs coalescing", measure: (*laboratory).compare, load: shape(50, 16, 100), baseline: servers.Coalescing,
		numbers: []loadNumber{throughput(0.65)}},
	{name: "10x2x64KiB vs plain", measure: (*laboratory).compare, load: shape(10, 2, 64<<10), baseline: servers.Plain,
		numbers: []loadNumber{throughput(0.65)}},
	{name: "10x4x64KiB vs plain", measure: (*laboratory).compare, load: shape(10, 4, 64<<10), baseline: servers.Plain,
		numbers: []loadNumber{throughput(0.65)}},
	{name: "50x1x100B vs plain", measure: (*laboratory).compare, load: shape(50, 1, 100), baseline: servers.Plain,
		numbers: []loadNumber{throughput(0.55)}},
	{name: "1x1x100B vs plain", measure: (*laboratory).compare, load: shape(1, 1, 100), baseline: servers.Plain,
		numbers: []loadNumber{addedMedian(110)}},
	{name: "5000 req/s over 50 vs plain", measure: (*laboratory).compare, baseline: servers.Plain,
		load:    load.Options{Connections: 50, Window: 16, Size: 100, Rate: 5000},
		numbers: []loadNumber{serverCPU(5.5), tailLatency()}},
	{name: "child each, 50x16x100B vs plain", measure: (*laboratory).compare, load: shape(50, 16, 100), baseline: servers.Plain, app: childApplication,
		numbers: []loadNumber{throughput(0)}},
	{name: "child each, 50x16x100B vs websocketd", measure: (*laboratory).compare, load: shape(50, 16, 100), baseline: websocketdStyle, app: childApplication,
		numbers: []loadNumber{throughput(1.25)}},
	{name: "5 of 25 never read", measure: (*laboratory).stalled, load: shape(20, 8, 1<<10)},
	{name: "idle peers", measure: (*laboratory).idlePeers},
	{name: "SIGKILL of the plugin", measure: (*laboratory).killed},
	{name: "remote fairness", measure: (*laboratory).fairness, profile: backend.Profile3},
	{name: "remote fairness, whole frames", measure: (*laboratory).fairness, profile: backend.Profile2},
	{name: "start", measure: (*laboratory).started},
}

// Floors of the rows that are not comparisons under load.
var (
	stalledThroughputFloor = floor{atLeast: 0.9}
	stalledMemoryFloor     = floor{atMost: 2}   // MiB for each stalled peer and process
	idleMemoryFloor        = floor{atMost: 10}  // KiB a peer, plugin and host together
	killedFloor            = floor{atMost: 100} // ms
	fairnessFloor          = floor{atMost: 2}   // times the p99 of the same client alone
	startedFloor           = floor{atMost: 300} // ms
)
