package config

import "time"

// Idle is when sandboxes that nobody uses are frozen and stopped.
type Idle struct {
	FreezeAfter time.Duration // since the last client was connected; 0: never
	StopAfter   time.Duration // since the last activity, open page or not; 0: never
	WakeAhead   time.Duration // before a scheduled job
	Period      time.Duration // how often routers tell each other, and the reaper looks
}

// maxPeriod keeps a router's sign of life well within what its session allows.
const maxPeriod = 30 * time.Second

func newIdle() Idle {
	return Idle{FreezeAfter: 5 * time.Minute, StopAfter: 30 * time.Minute, WakeAhead: 30 * time.Second, Period: 10 * time.Second}
}

type idleBlock struct {
	FreezeAfter *duration `hcl:"freeze_after" default:"5m" doc:"after the last client was connected; 0s: never" want:"0s or more"`
	StopAfter   *duration `hcl:"stop_after" default:"30m" doc:"after the last activity, open page or not; 0s: never" want:"0s or more"`
	WakeAhead   *duration `hcl:"wake_ahead" default:"30s" doc:"how long before a scheduled job a stopped sandbox is started" want:"0s or more"`
	Period      *duration `hcl:"period" default:"10s" doc:"how often routers tell each other what clients do, and one of them looks" want:"more than 0s, at most 30s"`
}

func (b *idleBlock) apply(c *Idle, bad *problems) {
	if b == nil {
		return
	}
	bad.duration("idle.freeze_after", &c.FreezeAfter, b.FreezeAfter, 0)
	bad.duration("idle.stop_after", &c.StopAfter, b.StopAfter, 0)
	bad.duration("idle.wake_ahead", &c.WakeAhead, b.WakeAhead, 0)
	bad.duration("idle.period", &c.Period, b.Period, 1)
	if c.Period > maxPeriod {
		bad.at("idle.period", "want at most %s, got %s", maxPeriod, c.Period)
	}
}
