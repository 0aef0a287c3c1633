package blocking

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	consul "github.com/hashicorp/consul/api"
)

func TestRun(t *testing.T) {
	type answer struct {
		index uint64
		after time.Duration // how long the query hung
		err   error
	}
	away := errors.New("away")
	const settle, idle = 20 * time.Millisecond, time.Second
	for name, c := range map[string]struct {
		answers []answer
		asked   []uint64        // with which index
		at      []time.Duration // when; 0 is not compared: a spread pause was before
		resets  int
		failed  int
	}{
		"news, one after the other": {answers: []answer{{index: 5}, {7, time.Minute, nil}, {9, time.Minute, nil}}, asked: []uint64{0, 5, 7}, at: []time.Duration{0, 0, time.Minute}},
		"a burst":                   {answers: []answer{{index: 5}, {index: 6}, {index: 7}, {index: 8}}, asked: []uint64{0, 5, 6, 7}, at: []time.Duration{0, 0, 0, settle}},
		"an index that went back":   {answers: []answer{{index: 5}, {3, time.Minute, nil}, {index: 4}}, asked: []uint64{0, 5, 0}, at: []time.Duration{0, 0, time.Minute + idle}, resets: 1},
		"no index":                  {answers: []answer{{index: 0}, {index: 0}}, asked: []uint64{0, 0}, at: []time.Duration{0, idle}},
		"an outage":                 {answers: []answer{{index: 5}, {err: away}, {err: away}, {index: 6}}, asked: []uint64{0, 5, 0, 0}, at: []time.Duration{0, 0, 0, 0}, failed: 2},
		"an outage, then a restored Consul": {answers: []answer{{index: 1000}, {err: away}, {index: 50}, {index: 51}}, asked: []uint64{0, 1000, 0, 0},
			at: []time.Duration{0, 0, 0, 0}, resets: 1, failed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begin := time.Now()
				var asked []uint64
				var at []time.Duration
				var taken []uint64
				resets, failed := 0, 0
				q := Query[uint64]{Wait: 5 * time.Minute, Slack: time.Second, MinBackoff: time.Second, MaxBackoff: 2 * time.Second, Settle: settle, Idle: idle, Quick: 2,
					Ask: func(o *consul.QueryOptions) (uint64, *consul.QueryMeta, error) {
						n := len(asked)
						asked, at = append(asked, o.WaitIndex), append(at, time.Since(begin))
						a := c.answers[n]
						time.Sleep(a.after)
						return a.index, &consul.QueryMeta{LastIndex: a.index}, a.err
					},
					Take: func(answer, index uint64, reset bool) {
						if answer != index {
							t.Errorf("answer %d with index %d", answer, index)
						}
						if taken = append(taken, index); reset {
							resets++
						}
					},
					Failed: func(err error) {
						if failed++; !errors.Is(err, away) {
							t.Error(err)
						}
					}}
				take := q.Take
				q.Take = func(answer, index uint64, reset bool) {
					if take(answer, index, reset); len(asked) == len(c.answers) {
						cancel()
					}
				}
				if err := q.Run(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("Run returned %v", err)
				}
				if !slices.Equal(asked, c.asked) || resets != c.resets || failed != c.failed || len(taken)+failed != len(c.answers) {
					t.Errorf("asked with %d, %d resets, %d failures, %d taken; want %d, %d, %d", asked, resets, failed, len(taken), c.asked, c.resets, c.failed)
				}
				for i, want := range c.at {
					if want != 0 && at[i] != want {
						t.Errorf("query %d at %s, want %s", i, at[i], want)
					}
				}
			})
		})
	}
}

// What hangs for longer than Consul may take has failed; the end of the context is no
// failure.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var failed []time.Duration
		var hung error
		q := Query[int]{Wait: 16 * time.Second, Slack: time.Second, MinBackoff: time.Second, MaxBackoff: time.Second, Settle: time.Second, Idle: time.Second,
			Ask: func(o *consul.QueryOptions) (int, *consul.QueryMeta, error) {
				<-o.Context().Done()
				return 0, nil, o.Context().Err()
			},
			Take:   func(int, uint64, bool) { t.Error("an answer") },
			Failed: func(err error) { failed, hung = append(failed, time.Since(begin)), err }}
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		if err := q.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run returned %v", err)
		}
		if !slices.Equal(failed, []time.Duration{18 * time.Second}) || !errors.Is(hung, context.DeadlineExceeded) {
			t.Errorf("failed after %s: %v", failed, hung)
		}
	})
}
