package load

import (
	"math"
	"testing"
	"time"
)

func TestHistogramSteps(t *testing.T) {
	for _, v := range []uint64{0, 1, 63, 64, 127, 128, 129, 1000, 123_456, 1e9, 1e15, math.MaxInt64} {
		top := topOf(stepOf(v))
		if uint64(top) < v || float64(top) > float64(v)*1.0157+1 {
			t.Errorf("%d falls into a step that ends at %d, want at most 1.6 %% above", v, top)
		}
		if top < math.MaxInt64 && stepOf(uint64(top)+1) != stepOf(v)+1 {
			t.Errorf("the step of %d ends at %d, but the next value is in step %d, not %d", v, top, stepOf(uint64(top)+1), stepOf(v)+1)
		}
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var a, b, none Histogram
	for i := 1; i <= 1000; i++ {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.Record(time.Duration(i) * time.Microsecond)
	}
	b.Record(-time.Second)
	a.Add(&b)
	for _, tt := range []struct {
		q    float64
		want time.Duration
	}{{0, 0}, {0.5, 500 * time.Microsecond}, {0.99, 990 * time.Microsecond}, {1, time.Millisecond}} {
		got := a.Quantile(tt.q)
		if got < tt.want || float64(got) > float64(tt.want)*1.02 {
			t.Errorf("quantile %v: got %v, want %v to +2 %%", tt.q, got, tt.want)
		}
	}
	if a.Count() != 1001 || a.Max() != time.Millisecond || none.Quantile(0.5) != 0 {
		t.Errorf("got %d recorded, longest %v, median of nothing %v; want 1001, 1ms, 0", a.Count(), a.Max(), none.Quantile(0.5))
	}
}
