package lineage

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Bear gives a process that has just been started the half of its mark that is
// a resource limit. It is no error if that cannot be: the environment has the
// other half. What the process has started before that has only the other.
func (m Mark) Bear(pid int) {
	m.limitTo(pid)
}

// Lend makes this process bear that half itself until the end of the loan, so
// that what it starts meanwhile has it from the first instruction on. Every
// process that it starts meanwhile has it.
func (m Mark) Lend() (end func()) {
	had, ok := m.limitTo(0)
	if !ok {
		return func() {}
	}
	return func() { _ = unix.Prlimit(0, unix.RLIMIT_LOCKS, &had, nil) }
}

// Shed takes that half of whatever mark it has from a process that has just been
// started: this process may bear one itself, of a run above.
func Shed(pid int) {
	var had unix.Rlimit
	if unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &had) == nil && isMark(had.Cur) {
		_ = unix.Prlimit(pid, unix.RLIMIT_LOCKS, &unix.Rlimit{Cur: had.Max, Max: had.Max}, nil)
	}
}

func (m Mark) limitTo(pid int) (had unix.Rlimit, ok bool) {
	if unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &had) != nil || had.Max < m.limit() {
		return had, false
	}
	return had, unix.Prlimit(pid, unix.RLIMIT_LOCKS, &unix.Rlimit{Cur: m.limit(), Max: had.Max}, nil) == nil
}

// A Member is a process that seems to descend from a run.
type Member struct {
	PID   int
	Child uint32 // of the run, from which it descends
	run   Run
}

// Members lists the processes that bear marks of the run, the dead and unburied
// among them. One that is just about to become another program may be left out.
// It costs less than 10 µs for each process of the system.
func (r Run) Members() []Member {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1) // what could be read
	var list []Member
	self := os.Getpid()
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == self {
			continue
		}
		child, ok := limitChild(pid, r)
		if !ok {
			child, ok, _ = environChild(pid, r)
		}
		if ok {
			list = append(list, Member{pid, child, r})
		}
	}
	return list
}

func limitChild(pid int, r Run) (uint32, bool) {
	l, err := lockLimit(pid)
	return uint32(l), err == nil && r.isLimit(l)
}

// isLimit reports whether l is half of a mark of the run.
func (r Run) isLimit(l uint64) bool { return r != 0 && l>>32 == r.prefix() }

// lockLimit returns the half of a mark that is a limit, or what else is there.
func lockLimit(pid int) (uint64, error) {
	var l unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &l)
	return l.Cur, err
}

func environChild(pid int, r Run) (child uint32, ok, marked bool) {
	b, err := environOf(pid)
	if err != nil {
		return 0, false, false
	}
	return childIn(b, r)
}

func environOf(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return string(b), err
}

// Kill ends the process at once, and reports whether there was one: it lived,
// and bears the mark beyond doubt.
func (m Member) Kill() bool {
	// The handle first: whatever gets the number after this, it is not that
	// which is killed.
	p, err := os.FindProcess(m.PID)
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	if s, ok := statOf(m.PID); !ok || s.dead {
		return false
	}
	_, mine, marked := environChild(m.PID, m.run)
	if _, limited := limitChild(m.PID, m.run); !mine && (marked || !limited) {
		return false // another run's, or the number is another's now
	}
	_ = p.Kill() // what may not be killed is there all the same
	return true
}

// The time between two looks: what was killed is gone after the short one,
// mostly. For what is not, there is no hurry.
const (
	pause     = 2 * time.Millisecond
	longPause = 50 * time.Millisecond
	hurry     = time.Second
)

// End ends everything that bears a mark of the run, and returns how many are
// left after limit at most: usually none. It is done when two looks in a row
// find nothing: a process that was just becoming another program hides from one.
func (r Run) End(limit time.Duration) (left int) {
	if r == 0 {
		return 0
	}
	began := time.Now()
	for clean := 0; clean < 2; {
		left = 0
		for _, m := range r.Members() {
			if m.Kill() {
				left++
			}
		}
		if clean++; left > 0 {
			clean = 0
			if time.Since(began) > limit {
				return left
			}
		}
		switch {
		case clean == 2:
		case time.Since(began) < hurry:
			time.Sleep(pause)
		default:
			time.Sleep(longPause)
		}
	}
	return 0
}
