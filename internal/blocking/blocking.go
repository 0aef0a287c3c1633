// Package blocking follows what Consul has by its blocking queries
// (https://developer.hashicorp.com/consul/api-docs/features/blocking).
package blocking

import (
	"context"
	"math/rand/v2"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/pause"
)

// Query is what is asked again and again. All of its fields but Quick are wanted.
type Query[T any] struct {
	// Ask asks once, by the options.
	Ask func(*consul.QueryOptions) (T, *consul.QueryMeta, error)
	// Take gets each answer with its index. reset says that Consul's indexes began anew.
	Take func(answer T, index uint64, reset bool)
	// Failed gets each error, unless the context has ended.
	Failed func(error)

	// Wait is how long one query may hang; Consul adds up to a sixteenth. Slack is how
	// much longer it may take until it counts as failed.
	Wait, Slack time.Duration
	// MinBackoff and MaxBackoff bound the pause after a failed query.
	MinBackoff, MaxBackoff time.Duration
	// Settle is the least time between two queries once Quick came closer to each other:
	// many changes may come in a burst. Idle is the same where an answer can not be
	// waited on.
	Settle, Idle time.Duration
	Quick        int
}

// Run asks until ctx ends, and returns its error.
func (q Query[T]) Run(ctx context.Context) error {
	// index is what the next query waits with; seen is the last answer's, which outlasts an
	// outage: a Consul that was restored from a backup answers with errors first, then with
	// lower indexes.
	var index, seen uint64
	burst := 0 // how many answers in a row came within Settle
	backoff := q.MinBackoff
	for ctx.Err() == nil {
		asked := time.Now()
		call, cancel := context.WithTimeout(ctx, q.Wait+q.Wait/16+q.Slack)
		answer, meta, err := q.Ask((&consul.QueryOptions{WaitIndex: index, WaitTime: q.Wait}).WithContext(call))
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			q.Failed(err)
			spread := backoff/2 + rand.N(backoff) // so that routers do not come back all at once
			backoff = min(2*backoff, q.MaxBackoff)
			index = 0
			pause.For(ctx, spread)
			continue
		}
		backoff = q.MinBackoff
		rest := q.Settle - time.Since(asked)
		if burst++; rest <= 0 {
			burst = 0
		} else if burst <= q.Quick {
			rest = 0
		}
		// An index that went back, or is zero, starts over.
		reset := meta.LastIndex < seen
		seen = meta.LastIndex
		if index = meta.LastIndex; reset || index == 0 {
			index = 0
			rest = q.Idle // without an index the next query does not block
		}
		q.Take(answer, meta.LastIndex, reset)
		pause.For(ctx, rest)
	}
	return ctx.Err()
}
