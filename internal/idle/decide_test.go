package idle

import (
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/activity"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	p := Policy{FreezeAfter: 5 * time.Minute, StopAfter: 30 * time.Minute}
	always, never, onlyStop, onlyFreeze := p, Policy{}, p, p
	always.AlwaysOn, onlyStop.FreezeAfter, onlyFreeze.StopAfter = true, 0, 0
	used := func(last, left time.Duration, clients, working int) activity.Mark {
		return activity.Mark{Last: ago(last), Kind: activity.Message, Left: ago(left), Clients: clients, Working: working}
	}
	const min = time.Minute
	for name, c := range map[string]struct {
		policy Policy
		since  time.Duration
		mark   activity.Mark
		asleep bool
		act    Act
		why    string
		next   Act
		in     time.Duration
	}{
		"used just now":                {p, time.Hour, used(min, 2*min, 0, 0), false, Keep, "activity 1m0s ago, the last was a message", Freeze, 4 * min},
		"nobody for long enough":       {p, time.Hour, used(6*min, 6*min, 0, 0), false, Freeze, "nobody connected for 6m0s", "", 0},
		"left after the last act":      {p, time.Hour, used(10*min, 2*min, 0, 0), false, Keep, "activity 10m0s ago", Freeze, 3 * min},
		"somebody is connected":        {p, time.Hour, used(10*min, 20*min, 1, 0), false, Keep, "a client is connected", Stop, 20 * min},
		"two are":                      {p, time.Hour, used(10*min, 20*min, 2, 0), false, Keep, "2 clients are connected", Stop, 20 * min},
		"a forgotten tab":              {p, 3 * time.Hour, used(31*min, 2*time.Hour, 1, 0), false, Stop, "no activity for 31m0s, the last was a message at 2026-11-26T11:29:00Z", "", 0},
		"a call that takes an hour":    {p, 3 * time.Hour, used(time.Hour, 2*time.Hour, 1, 1), false, Keep, "a request is being answered", Keep, 0},
		"frozen":                       {p, time.Hour, used(10*min, 10*min, 0, 0), true, Keep, "frozen", Stop, 20 * min},
		"frozen for long enough":       {p, time.Hour, used(31*min, 31*min, 0, 0), true, Stop, "no activity for 31m0s", "", 0},
		"nothing heard, young":         {p, min, activity.Mark{}, false, Keep, "nothing was heard of its clients", Freeze, 4 * min},
		"nothing heard, for long":      {p, 6 * min, activity.Mark{}, false, Freeze, "nothing was heard", "", 0},
		"woken for its job":            {p, min, used(5*time.Hour, 5*time.Hour, 0, 0), false, Keep, "activity 1m0s ago", Freeze, 4 * min},
		"always on":                    {always, 9 * time.Hour, used(9*time.Hour, 9*time.Hour, 0, 0), false, Keep, "always on", Keep, 0},
		"neither":                      {never, 9 * time.Hour, used(9*time.Hour, 9*time.Hour, 0, 0), false, Keep, "activity", Keep, 0},
		"never frozen":                 {onlyStop, time.Hour, used(10*min, 10*min, 0, 0), false, Keep, "activity", Stop, 20 * min},
		"never stopped":                {onlyFreeze, 9 * time.Hour, used(9*time.Hour, 9*time.Hour, 0, 0), false, Freeze, "nobody", "", 0},
		"never stopped, frozen":        {onlyFreeze, 9 * time.Hour, used(9*time.Hour, 9*time.Hour, 0, 0), true, Keep, "frozen", Keep, 0},
		"by a clock that is far ahead": {p, time.Hour, used(-10*min, 2*min, 0, 0), false, Keep, "activity 0s ago", Freeze, 15 * min},
	} {
		t.Run(name, func(t *testing.T) {
			d := c.policy.Decide(now, ago(c.since), c.mark, c.asleep)
			if d.Act != c.act || !strings.Contains(d.Why, c.why) || d.Next != c.next {
				t.Errorf("%+v, want %s because %q, then %s", d, c.act, c.why, c.next)
			}
			if in := d.At.Sub(now); c.in > 0 && in != c.in {
				t.Errorf("%s in %s, want in %s", d.Next, in, c.in)
			}
		})
	}
}

func TestOverrides(t *testing.T) {
	p := Policy{FreezeAfter: time.Minute, StopAfter: time.Hour}
	for text, want := range map[string]Policy{
		`{}`:                     p,
		`{"always_on":true}`:     {FreezeAfter: time.Minute, StopAfter: time.Hour, AlwaysOn: true},
		`{"freeze_after":"0s"}`:  {StopAfter: time.Hour},
		`{"stop_after":"2h30m"}`: {FreezeAfter: time.Minute, StopAfter: 150 * time.Minute},
	} {
		o, err := ParseOverride([]byte(text))
		if err != nil || p.With(o) != want {
			t.Errorf("%s: %+v, %v; want %+v", text, p.With(o), err, want)
		}
	}
	for _, text := range []string{``, `{"stop_after":"-1s"}`, `{"stop_after":"soon"}`, `{"stop_after":5}`, `[]`} {
		if o, err := ParseOverride([]byte(text)); err == nil {
			t.Errorf("%s was taken for %+v", text, o)
		}
	}
}
