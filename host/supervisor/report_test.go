package supervisor

import (
	"reflect"
	"strings"
	"testing"

	"github.com/transporthost/transporthost/shared/transport"
)

func TestPresentable(t *testing.T) {
	many := map[string]string{}
	for i := range 100 {
		many[string(rune('A'+i))] = "x"
	}
	for _, tt := range []struct {
		name     string
		in, want transport.Status
	}{
		{"plain", transport.Status{State: "connected", Ready: true, Details: map[string]string{"account": "acc…"}},
			transport.Status{State: "connected", Ready: true, Details: map[string]string{"account": "acc…"}}},
		{"lines and commands for a terminal", transport.Status{State: "retrying", Cause: "HTTP 403:\r\n\x1b[2Jtransporthost: ready\n", Remedy: "a\tb\u202ec"},
			transport.Status{State: "retrying", Cause: "HTTP 403:;  [2Jtransporthost: ready", Remedy: "a b c"}},
		{"not text", transport.Status{Cause: "a\xffb"}, transport.Status{Cause: "a\ufffdb"}},
		{"long", transport.Status{Cause: strings.Repeat("x", maxReportText-1) + "äö", Details: map[string]string{strings.Repeat("k", 100): strings.Repeat("v", 2000)}},
			transport.Status{Cause: strings.Repeat("x", maxReportText-1), Details: map[string]string{strings.Repeat("k", maxReportName): strings.Repeat("v", maxReportText)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := presentable(tt.in); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	if got := presentable(transport.Status{Details: many}).Details; len(got) != maxReportDetails || got["A"] != "x" {
		t.Errorf("%d details are left of 100, want %d, the first ones", len(got), maxReportDetails)
	}
}
