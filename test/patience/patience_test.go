package patience

import (
	"testing"
	"time"
)

func TestOf(t *testing.T) {
	if got := Of(time.Minute); got != time.Minute {
		t.Errorf("unmeasured: %s, want 1m", got)
	}
	for took, want := range map[time.Duration]time.Duration{
		time.Second: time.Minute, 30 * time.Second: 90 * time.Second, time.Hour: 6 * time.Minute,
	} {
		if Measure(took, 20*time.Second); Of(time.Minute) != want {
			t.Errorf("after a start of %s: %s, want %s", took, Of(time.Minute), want)
		}
	}
}
