package remotecontrol

import (
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// TestWholeEnvelopesOvertakeSegments, and do not keep them back for ever.
func TestWholeEnvelopesOvertakeSegments(t *testing.T) {
	c := newClients(new(pluginsdk.Host), profile3, "", defaultMaxClients, hclog.NewNullLogger())
	defer c.close(pluginsdk.CloseReason{})
	c.linked = true
	fill := func(client, message string, times int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		s := c.streamLocked(streamKey{client, "s"})
		for range times {
			m := hostMessage{seq: s.out.host + 1, payload: ropeOf([]byte(message)), verdict: messageValid}
			s.out.add([]entry{m.entry(s.out.next, s.out.tail, profile3)})
		}
		c.offerLocked(s)
	}
	fill("large", `"`+strings.Repeat("x", 50*segmentBytes)+`"`, 1)
	fill("other", `"`+strings.Repeat("x", 50*segmentBytes)+`"`, 1)
	fill("small", `{}`, 3*maxOvertakes)

	take := func(segments bool) string {
		s, e, ok := c.takeEnvelope(segments)
		if !ok {
			return ""
		}
		if e.whole() != (s.key.client == "small") {
			t.Errorf("an envelope of %s: whole %v", s.key.client, e.whole())
		}
		return s.key.client
	}
	var got []string
	for range 2*maxOvertakes + 2 {
		got = append(got, take(true))
	}
	small := strings.Repeat("small ", maxOvertakes)
	if want := small + "large " + small + "other"; strings.Join(got, " ") != want {
		t.Errorf("with segments: %s, want %s", got, want)
	}
	for range maxOvertakes {
		if got := take(false); got != "small" {
			t.Fatalf("without segments: %q", got)
		}
	}
	if got := take(false); got != "" {
		t.Errorf("while segments rest, one of %s was taken", got)
	}
	if got := take(true) + take(true) + take(true); got != "largeotherlarge" {
		t.Errorf("behind the rest: %s", got)
	}
	c.linkDown()
	if len(c.ring)+len(c.segments) != 0 || c.streams["large"]["s"].inRing {
		t.Error("a ring outlives its link")
	}
}
