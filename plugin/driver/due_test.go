package driver

import (
	"testing"
	"time"

	"openclaw-sandbox/internal/snapshot"
)

func TestDue(t *testing.T) {
	zero := time.Unix(1_000_000, 0)
	at := func(s float64) time.Time { return zero.Add(time.Duration(s * float64(time.Second))) }
	changed := func(s float64) snapshot.Changes { return snapshot.Changes{Paths: 1, Newest: at(s)} }
	type look struct {
		now  float64
		c    snapshot.Changes
		want bool
	}
	for name, looks := range map[string][]look{
		"nothing":              {{1, snapshot.Changes{}, false}, {900, snapshot.Changes{}, false}},
		"settles":              {{1, changed(1), false}, {3, changed(1), false}, {6, changed(1), true}},
		"never settles":        {{1, changed(1), false}, {30, changed(30), false}, {60, changed(60), false}, {61, changed(61), true}},
		"undone":               {{1, changed(1), false}, {40, snapshot.Changes{}, false}, {62, changed(62), false}},
		"a sign of life":       {{1, snapshot.Changes{Quiet: 1}, false}, {299, snapshot.Changes{Quiet: 1}, false}, {300, snapshot.Changes{Quiet: 1}, true}},
		"life and a change":    {{1, snapshot.Changes{Quiet: 1, Paths: 1, Newest: at(1)}, false}, {6, snapshot.Changes{Quiet: 1, Paths: 1, Newest: at(1)}, true}},
		"a clock set backward": {{1, changed(5000), false}, {61, changed(5000), true}},
	} {
		d := due{debounce: 5 * time.Second, interval: time.Minute, quiet: 5 * time.Minute, saved: zero}
		for _, l := range looks {
			if got := d.save(at(l.now), l.c); got != l.want {
				t.Errorf("%s: after %v s: %v, want %v", name, l.now, got, l.want)
			}
		}
	}
	d := due{debounce: 5 * time.Second}
	for took, want := range map[time.Duration]time.Duration{0: 1250 * time.Millisecond, time.Millisecond: 1250 * time.Millisecond, 100 * time.Millisecond: 5 * time.Second} {
		if got := d.poll(took); got != want {
			t.Errorf("poll after %s: %s, want %s", took, got, want)
		}
	}
}
