//go:build unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// A doomed plugin never gets as far as a process: every attempt fails, on a
// clock that the test owns.
type doomed struct {
	*Plugin
	attempts []time.Time
	pauses   []Status // of each back-off, as it was told
	stop     func()
}

var errDoomed = errors.New("the moon is full")

// doom runs a doomed plugin in the test's bubble.
func doom(policy backoff.Policy, seed uint64) (*doomed, error) {
	d := &doomed{}
	var err error
	d.Plugin, err = New(Spec{Instance: "test", Plugin: "test"}, Options{
		Sessions: &sessions{}, Starter: childproc.NewStarter(), RuntimeDir: "unused", Restart: policy,
		HostCalls: func(Spec, int, func(transport.Status)) rpc.HostCalls { return nil },
		Random:    rand.New(rand.NewPCG(seed, 1)),
		Prepare: func(context.Context, *Spec) error {
			d.attempts = append(d.attempts, time.Now())
			return errDoomed
		},
		Changed: func(string) {
			if s := d.Status(); s.State == BackingOff {
				d.pauses = append(d.pauses, s)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Run(ctx)
	}()
	d.stop = func() {
		cancel()
		<-done
	}
	return d, nil
}

// An undated test hides its deadline, which may not be asked for in a bubble.
type undated struct{ rapid.TB }

// TestTheLoopIsThePolicy: what the supervisor does, and says that it will do, is
// what the policy decides.
func TestTheLoopIsThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(undated{t}, func(t *rapid.T) {
			d, err := doom(backoff.Default(), rapid.Uint64().Draw(t, "seed"))
			if err != nil {
				t.Fatal(err)
			}
			defer d.stop()
			for round := range 3 { // as often as a person asks
				// The fifth failure comes after three waits at most, of 250 ms, 500 ms
				// and 1 s; then there is none.
				time.Sleep(time.Hour)
				synctest.Wait()
				if got, want := len(d.attempts), 5*(round+1); got != want {
					t.Fatalf("%d attempts in an hour, want 5", got-5*round)
				}
				s := d.Status()
				if s.State != Failed || s.Cause != errDoomed.Error() || s.NextAttempt != nil ||
					s.Remedy != "mend the cause, then: transporthost plugins restart test" {
					t.Fatalf("given up with the status %+v, want the reason and the remedy", s)
				}
				for i, p := range d.pauses {
					at := d.attempts[i/4*5+i%4+1]
					if p.NextAttempt == nil || !p.NextAttempt.Equal(at) || p.Cause != errDoomed.Error() {
						t.Fatalf("pause %d announced %v for %q, the attempt was at %v", i+1, p.NextAttempt, p.Cause, at)
					}
					wait := at.Sub(d.attempts[i/4*5+i%4])
					if bound := 250 * time.Millisecond << max(i%4-1, 0); i%4 == 0 && wait != 0 || i%4 > 0 && (wait < 25*time.Millisecond || wait > bound) {
						t.Fatalf("pause %d is %v", i+1, wait)
					}
				}
				if got, want := len(d.pauses), 4*(round+1); got != want {
					t.Fatalf("%d pauses, want %d", got, want)
				}
				if round == 2 {
					return
				}
				// The answer is that of the one attempt; more follow, for the failures
				// before are forgiven.
				if err := d.Restart(context.Background()); !errors.Is(err, errDoomed) {
					t.Fatalf("a restart that fails: %v", err)
				}
			}
		})
	})
}

// TestTheLoopNeverRunsHot: for a week, without giving up.
func TestTheLoopNeverRunsHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backoff.Default()
		p.GiveUpAfter = 0
		d, err := doom(p, 1)
		if err != nil {
			t.Fatal(err)
		}
		const hours = 7 * 24
		time.Sleep(hours * time.Hour)
		synctest.Wait()
		d.stop()
		if n := len(d.attempts); n < hours*200 || n > hours*280 {
			t.Errorf("%d attempts in %d hours, want about one in 15 s", n, hours)
		}
		var longest time.Duration
		for i := 2; i < len(d.attempts); i++ {
			wait := d.attempts[i].Sub(d.attempts[i-1])
			if wait < 25*time.Millisecond || wait > 30*time.Second {
				t.Fatalf("wait %d is %v", i, wait)
			}
			longest = max(longest, wait)
		}
		if longest < 29*time.Second {
			t.Errorf("the longest wait is %v: the cap is not held", longest)
		}
	})
}

func TestAPersonNeedNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backoff.Policy{Min: time.Hour, Max: time.Hour, ResetAfter: time.Minute}
		d, err := doom(p, 1)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the second attempt was made at once
		began := time.Now()
		if err := d.Restart(t.Context()); !errors.Is(err, errDoomed) || time.Since(began) != 0 {
			t.Errorf("a restart in the pause: %v, after %v", err, time.Since(began))
		}
		synctest.Wait()
		if n := len(d.attempts); n != 4 {
			t.Errorf("%d attempts, want two, one that was asked for, and one at once after it", n)
		}
		d.stop() // in the pause, which ends with it
		if s := d.Status(); s.State != Stopped || s.NextAttempt != nil || time.Since(began) != 0 {
			t.Errorf("after %v the status is %+v", time.Since(began), s)
		}
	})
}

func TestBadPolicy(t *testing.T) {
	_, err := doom(backoff.Policy{Min: time.Second}, 1)
	if err == nil || !strings.Contains(err.Error(), "ResetAfter is 0s") || !strings.Contains(err.Error(), "Max is 0s") {
		t.Errorf("got %v", err)
	}
}

// TestAPluginThatDiesAfterItsStart is no healthy one: it is given up like one
// that never starts, and its next chance is as good.
func TestAPluginThatDiesAfterItsStart(t *testing.T) {
	r := start(t, "ends after Ready", func(_ *Spec, o *Options) { o.Restart.GiveUpAfter = 5 })
	for n := 5; n <= 10; n += 5 {
		s := r.await(fmt.Sprintf("failed %d times", n), func(s Status) bool { return s.State == Failed && s.Incarnation == n })
		if s.Restarts != n-1 || !strings.Contains(s.Cause, "exited with status 1") || s.Remedy == "" || s.PID != 0 {
			t.Errorf("status %+v", s)
		}
		_ = r.plugin.Restart(t.Context()) // whether it dies before or after it is ready is a race
	}
}

// TestAHangIsNoHealth: the time in which it did not answer does not count as
// uptime, so a plugin that hangs whenever it is replaced is given up.
func TestAHangIsNoHealth(t *testing.T) {
	r := start(t, "healthy", func(_ *Spec, o *Options) {
		o.ProbeInterval, o.ProbeTimeout = 100*time.Millisecond, 2500*time.Millisecond
		o.Restart.GiveUpAfter, o.Restart.ResetAfter = 3, 2*time.Second
	})
	for n := 1; n <= 3; n++ {
		s := r.await(fmt.Sprintf("ready %d times", n), func(s Status) bool { return s.State == Ready && s.Incarnation == n })
		if err := syscall.Kill(s.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	s := r.await("failed", func(s Status) bool { return s.State == Failed || s.Incarnation > 3 })
	if s.Incarnation != 3 || !strings.Contains(s.Cause, "hangs: no answer to a probe for ") {
		t.Errorf("status %+v", s)
	}
}
