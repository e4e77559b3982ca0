//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// least and most time between the beginnings of two actions.
	leastGap = 300 * time.Millisecond
	mostGap  = 1500 * time.Millisecond
	// atOnce is how many actions may be under way: that one transport recovers
	// while another one is touched is worth a look.
	atOnce = 2
	// calmer is how much longer than healthyAfter a process runs before it is
	// ended: the host's clock may begin later than ours.
	calmer = 500 * time.Millisecond
	// newer is how much rather something is done that was not done yet: a run of
	// minutes has seen everything.
	newer = 20
)

// A monkey does random things, all of them drawn from one seed. What it does
// when depends on how long each takes too, so that two runs with one seed are
// alike, not the same.
type monkey struct {
	l       *laboratory
	actions []action
	random  *rand.Rand

	mu   sync.Mutex // guards what follows
	done map[string]bool
	held map[part]bool
	born map[part]time.Time // since when its process runs, at the latest
}

func newMonkey(l *laboratory, actions []action, seed uint64) *monkey {
	return &monkey{l: l, actions: actions, random: rand.New(rand.NewPCG(seed, 2)), done: map[string]bool{}, held: map[part]bool{}, born: map[part]time.Time{}}
}

// run does one thing after another until d has passed or ctx ends, and returns
// when everything that it did is over.
func (m *monkey) run(ctx context.Context, d time.Duration) {
	var under sync.WaitGroup
	defer under.Wait()
	slots := make(chan struct{}, atOnce)
	for end := time.Now().Add(d); time.Now().Before(end); {
		gap := leastGap + time.Duration(m.random.Int64N(int64(mostGap-leastGap)))
		if !pause(ctx, gap) {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		a, ok := m.choose(time.Now())
		if !ok {
			<-slots
			continue
		}
		seed := m.random.Uint64()
		under.Go(func() {
			defer func() { <-slots }()
			m.perform(ctx, a, rand.New(rand.NewPCG(seed, 3)))
		})
	}
}

// choose draws one of the actions that are possible now, and takes its part.
func (m *monkey) choose(now time.Time) (action, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var possible []action
	var weights []int
	total := 0
	for _, a := range m.actions {
		if m.held[a.on] || a.replaces && now.Sub(m.born[a.on]) < healthyAfter+calmer {
			continue
		}
		weight := a.weight
		if !m.done[a.name] {
			weight *= newer
		}
		possible, weights = append(possible, a), append(weights, weight)
		total += weight
	}
	if total == 0 {
		return action{}, false
	}
	ticket := m.random.IntN(total)
	for i, a := range possible {
		if ticket -= weights[i]; ticket < 0 {
			m.held[a.on], m.done[a.name] = true, true
			return a, true
		}
	}
	return action{}, false
}

// perform does one thing, and waits until everything that it touched is back.
func (m *monkey) perform(ctx context.Context, a action, random *rand.Rand) {
	r := m.l.record
	r.event("begins: %s", a.name)
	release := r.exposure.touch(a.touches...)
	err := a.do(ctx, m.l, random)
	if err == nil {
		err = m.l.settle(ctx, touchedTransports(a)...)
	}
	release()
	if err != nil && ctx.Err() == nil {
		r.fail("%s: %v", a.name, err)
	}
	r.event("ends: %s", a.name)
	r.acted(a.name)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[a.on] = false
	if a.replaces {
		m.born[a.on] = time.Now()
	}
}

func touchedTransports(a action) []part {
	var all []part
	for _, p := range a.touches {
		if p != application {
			all = append(all, p)
		}
	}
	return all
}
