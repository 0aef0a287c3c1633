package launch

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openclaw-sandbox/internal/sandbox"
)

// Other terms count for what begins after them, and let those in line begin.
func TestSetTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("a", "b", "c")
		cfg := DefaultConfig()
		cfg.MaxStarting = 1
		l := simulated(t, cfg, g.nomad(), g)
		a := l.Wake("a", false)
		synctest.Wait()
		b := l.Wake("b", false)
		if got := g.starts(); got != "a" {
			t.Fatalf("began %q", got)
		}
		terms := cfg.Terms
		terms.MaxStarting, terms.StartTimeout, terms.UserStarts, terms.MaxQueued = 2, time.Minute, 1, 1
		l.Set(terms)
		if got := g.starts(); got != "a b" {
			t.Errorf("with room for two began %q", got)
		}
		l.Wake("c", false)
		synctest.Wait()
		if p, _ := l.Wake("d", false).Progress(); p.Reason != sandbox.ReasonQueueFull {
			t.Errorf("a second in line: %+v", p)
		}
		time.Sleep(61 * time.Second)
		if p, _ := b.Progress(); p.Reason != sandbox.ReasonNotReady || !strings.Contains(p.Message, "1m0s") {
			t.Errorf("after its minute: %+v", p)
		}
		if p, _ := a.Progress(); p.Phase == sandbox.PhaseFailed {
			t.Errorf("what began before: %+v", p)
		}
		time.Sleep(2 * time.Minute)
		if p, _ := a.Progress(); p.Reason != sandbox.ReasonNotReady || !strings.Contains(p.Message, "3m0s") {
			t.Errorf("what began before, after three minutes: %+v", p)
		}
		// Of the 60 starts that an hour had, one is left.
		g.open["a"] <- nil
		if _, err := l.Wake("a", true).Wait(t.Context()); err != nil {
			t.Errorf("another start: %v", err)
		}
		if p, _ := l.Wake("a", true).Progress(); p.Reason != sandbox.ReasonTooOften {
			t.Errorf("a third start: %+v", p)
		}
	})
}
