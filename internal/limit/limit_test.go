package limit

import (
	"net/netip"
	"testing"
	"time"
)

func TestRates(t *testing.T) {
	l, now := NewRates[string](60, 2), time.Now()
	for _, c := range []struct {
		key   string
		after time.Duration // since the one before
		wait  time.Duration
	}{{"a", 0, 0}, {"a", 0, 0}, {"a", 0, time.Second}, {"a", 0, time.Second}, {"b", 0, 0}, {"a", time.Second, 0}, {"a", 0, time.Second}} {
		now = now.Add(c.after)
		if got := l.Allow(c.key, now); got != c.wait {
			t.Errorf("%s waits %s, want %s", c.key, got, c.wait)
		}
	}
	if !l.Spent("a", now) || l.Spent("b", now) {
		t.Error("Spent does not agree")
	}
}

func TestRatesForget(t *testing.T) {
	l, now := NewRates[int](1, 1), time.Now()
	for k := range maxKeys + 1 {
		l.Allow(k, now)
	}
	if l.seen.Len() != maxKeys || l.Allow(0, now) != 0 || l.Allow(maxKeys, now) == 0 {
		t.Errorf("%d keys are known, or not the last ones", l.seen.Len())
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{"192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::"} {
		if got := Network(netip.MustParseAddr(in)); got != netip.MustParseAddr(want) {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

// What a request pays for a limit.
func BenchmarkAllow(b *testing.B) {
	l, now := NewRates[string](1e9, 1e9), time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Allow("alice", now)
		}
	})
}
