package idle

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
)

// simulate runs f in simulated time.
func simulate(t *testing.T, f func(*term)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(24 * time.Hour) // away from the clock's zero
		f(newTerm(t))
	})
}

func TestFreezeThenStop(t *testing.T) {
	simulate(t, func(m *term) {
		m.runs("alice", catalog.Serving)
		m.clients.Note("alice", activity.Message)
		last := time.Now()
		m.rest.Due = last.Add(48 * time.Hour)
		m.pass(5 * time.Minute)
		m.want("")
		m.pass(period)
		m.want("freeze alice")
		e := m.entry("alice")
		if e.Act != Freeze || e.Generation != "g-alice" || !e.Due.Equal(m.rest.Due) || !strings.Contains(e.Why, "nobody connected for 5m") {
			t.Errorf("written down: %+v", e)
		}
		if len(m.ends) != 1 || !m.ends[0] {
			t.Errorf("the rest ended %v; a gateway that is frozen at rest takes no work when it goes on", m.ends)
		}
		m.pass(25*time.Minute - period)
		m.want("")
		m.pass(2 * period)
		m.want("stop alice")
		if e := m.entry("alice"); e.Act != Stop || !e.Due.Equal(m.rest.Due) {
			t.Errorf("written down: %+v, want the stop, and the job that was known at the freeze", e)
		}
		if m.asked != 1 {
			t.Errorf("gateways were asked %d times, want once: one that is frozen can not answer", m.asked)
		}
		// The job: well ahead, once, and crossed off when it runs.
		time.Sleep(time.Until(m.rest.Due.Add(-30*time.Second - 2*period)))
		m.pass(period)
		m.want("")
		m.pass(3 * period)
		if got := m.did(); !strings.HasPrefix(got, "wake alice") {
			t.Errorf("30 s before the job: %q", got)
		}
		m.runs("alice", catalog.Serving)
		m.pass(time.Minute)
		m.want("")
		if e := m.entry("alice"); !e.Due.IsZero() {
			t.Errorf("after the job: %+v", e)
		}
	})
}

func TestBusy(t *testing.T) {
	simulate(t, func(m *term) {
		m.runs("alice", catalog.Serving)
		m.rest = Rest{Busy: "1 active run", RetryAfter: 25 * time.Second}
		m.pass(7 * time.Minute)
		m.want("")
		if e := m.entry("alice"); e.Act != Keep || e.Why != "busy: 1 active run" {
			t.Errorf("written down: %+v", e)
		}
		if m.kv.puts != 1 {
			t.Errorf("written %d times, want once", m.kv.puts)
		}
		if m.asked < 3 || m.asked > 5 {
			t.Errorf("asked %d times in two minutes, want every 25 s or so", m.asked)
		}
		m.cluster.rest.Busy = ""
		m.pass(time.Minute)
		m.want("freeze alice")
	})
}

func TestNothingIsDone(t *testing.T) {
	idleAlice := func(m *term) {
		m.runs("alice", catalog.Serving)
		m.looks()
		time.Sleep(6 * time.Minute)
	}
	for name, prepare := range map[string]func(m *term){
		"at the first look": func(m *term) { m.runs("alice", catalog.Serving); m.since["g-alice"] = time.Now().Add(-time.Hour) },
		"while a client comes": func(m *term) {
			idleAlice(m)
			m.while = func() { m.clients.Note("alice", activity.Page) }
		},
		"while a request is answered": func(m *term) { idleAlice(m); m.clients.Enter("alice", activity.Call); time.Sleep(time.Hour) },
		"without its being written":   func(m *term) { idleAlice(m); m.kv.deaf = true },
		"when Nomad is away":          func(m *term) { idleAlice(m); m.away = true },
		"when another router is silent": func(m *term) {
			m.kv.set("openclaw/activity/beat/you", "1", "s")
			idleAlice(m)
		},
		"for one who is always on": func(m *term) { m.kv.set(PolicyPrefix("openclaw")+"alice", `{"always_on":true}`, ""); idleAlice(m) },
		"when a job is due soon":   func(m *term) { idleAlice(m); m.rest.Due = time.Now().Add(50 * time.Second) },
		"once":                     func(m *term) { idleAlice(m); m.mute = true },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(m *term) {
				prepare(m)
				m.looks()
				m.want("")
				for _, resumed := range m.ends {
					if !resumed {
						t.Error("the gateway was left at rest")
					}
				}
			})
		})
	}
}

// Another router's silence stops the reaper only until its session ends.
func TestSilentRouterThatGoes(t *testing.T) {
	simulate(t, func(m *term) {
		m.kv.set("openclaw/activity/beat/you", "1", "s")
		m.kv.set("openclaw/activity/beat/you", "2", "s")
		m.runs("alice", catalog.Serving)
		m.pass(20 * time.Minute)
		m.want("")
		m.kv.mu.Lock()
		delete(m.kv.pairs, "openclaw/activity/beat/you")
		m.kv.mu.Unlock()
		m.pass(2 * period)
		m.want("freeze alice")
	})
}

func TestGatewayThatDoesNotSay(t *testing.T) {
	simulate(t, func(m *term) {
		m.mute = true
		m.kv.set(PolicyPrefix("openclaw")+"alice", `{"freeze_after":"0s"}`, "")
		m.runs("alice", catalog.Serving)
		m.pass(31 * time.Minute)
		m.want("")
		m.pass(3 * time.Minute)
		m.want("stop alice")
		if e := m.entry("alice"); !strings.Contains(e.Why, "does not say") {
			t.Errorf("written down: %+v", e)
		}
	})
}

func TestFrozenInUse(t *testing.T) {
	frozen, err := json.Marshal(Entry{Act: Freeze, Generation: "g-alice", At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	simulate(t, func(m *term) {
		// Of a freeze before this office, Consul's check is all that shows.
		m.kv.set(LedgerPrefix("openclaw")+"alice", string(frozen), "")
		m.runs("alice", catalog.Critical)
		m.looks()
		m.looks()
		synctest.Wait()
		m.want("")
		m.clients.Enter("alice", activity.Call)
		m.looks()
		synctest.Wait()
		m.want("wake alice")
		m.clients.Leave("alice", activity.Call)
		m.runs("alice", catalog.Serving)
		m.pass(6 * time.Minute)
		m.want("freeze alice")
		m.clients.Note("alice", activity.Message) // by a router that had not heard of it
		m.looks()
		synctest.Wait()
		m.want("wake alice")
	})
}

func TestAlwaysOn(t *testing.T) {
	simulate(t, func(m *term) {
		m.kv.set(PolicyPrefix("openclaw")+"alice", `{"always_on":true}`, "")
		m.kv.set(PolicyPrefix("openclaw")+"bob", `{"always_on":`, "") // nobody can read it
		m.looks()
		synctest.Wait()
		m.want("wake alice")
	})
}

// A job that was missed while nothing ran is woken for late, once.
func TestMissedJob(t *testing.T) {
	simulate(t, func(m *term) {
		missed, err := json.Marshal(Entry{Act: Stop, Generation: "g-alice", Due: time.Now().Add(-time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		m.kv.set(LedgerPrefix("openclaw")+"alice", string(missed), "")
		m.looks()
		synctest.Wait()
		m.want("wake alice")
		m.runs("alice", catalog.Serving)
		m.looks()
		m.cluster.mu.Lock()
		delete(m.of, "alice") // stopped by hand
		m.cluster.mu.Unlock()
		m.pass(time.Minute)
		synctest.Wait()
		m.want("")
	})
}

// Other terms count from the next look on.
func TestSetTerms(t *testing.T) {
	simulate(t, func(m *term) {
		m.runs("alice", catalog.Serving)
		m.clients.Note("alice", activity.Message)
		m.Set(Terms{Policy: Policy{StopAfter: time.Hour}, WakeAhead: 2 * time.Minute})
		m.rest.Due = time.Now().Add(3 * time.Hour)
		m.pass(40 * time.Minute)
		m.want("")
		m.Set(Terms{Policy: Policy{FreezeAfter: 30 * time.Minute, StopAfter: 45 * time.Minute}, WakeAhead: 2 * time.Minute})
		m.pass(period)
		m.want("freeze alice")
		m.pass(6 * time.Minute)
		m.want("stop alice")
		time.Sleep(time.Until(m.rest.Due.Add(-2*time.Minute - period)))
		m.pass(period)
		m.want("")
		m.pass(2 * period)
		if got := m.did(); !strings.HasPrefix(got, "wake alice") {
			t.Errorf("two minutes before the job: %q", got)
		}
	})
}
