package supervisor

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// A budget bounds what one plugin may have written into the log of the host: so
// many lines at once, and so many a second after that.
type budget struct {
	most, perSecond float64

	mu     sync.Mutex // guards what follows
	spent  float64
	last   time.Time
	unsaid int
}

// Of a plugin's own words, which are many while it is debugged and else few, and
// of what it reports of its state.
const (
	mostWords, wordsPerSecond     = 200, 10
	mostReports, reportsPerSecond = 30, 0.5
	longestWords                  = 4 << 10
)

// take reports whether one more line may be written, and if so, how many before
// it were not.
func (b *budget) take() (unsaid int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if !b.last.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.last).Seconds()*b.perSecond)
	}
	b.last = now
	if b.spent+1 > b.most {
		b.unsaid++
		return 0, false
	}
	b.spent++
	unsaid, b.unsaid = b.unsaid, 0
	return unsaid, true
}

// A wordLogger logs a plugin's own words, as far as its budget allows.
type wordLogger struct {
	hclog.Logger
	budget *budget
}

func (l wordLogger) say(logged bool, log func(string, ...any), msg string, args []any) {
	if !logged {
		return
	}
	unsaid, ok := l.budget.take()
	if !ok {
		return
	}
	if unsaid > 0 {
		l.Logger.Warn("the plugin says more than is logged", "left_out", unsaid)
	}
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = transport.Line(s, longestWords)
		}
	}
	log(transport.Line(msg, longestWords), args...)
}

func (l wordLogger) Trace(msg string, args ...any) { l.say(l.IsTrace(), l.Logger.Trace, msg, args) }
func (l wordLogger) Debug(msg string, args ...any) { l.say(l.IsDebug(), l.Logger.Debug, msg, args) }
func (l wordLogger) Info(msg string, args ...any)  { l.say(l.IsInfo(), l.Logger.Info, msg, args) }
func (l wordLogger) Warn(msg string, args ...any)  { l.say(l.IsWarn(), l.Logger.Warn, msg, args) }
func (l wordLogger) Error(msg string, args ...any) { l.say(l.IsError(), l.Logger.Error, msg, args) }
