package idle

import (
	"context"
	"errors"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/sandbox"
)

// Account is why a sandbox is up or was stopped, for a person and for programs.
type Account struct {
	// Why it is up; "" if it is not.
	Why string `json:"why,omitempty"`
	// Next is what comes if nothing happens until NextAt; "" if nothing will.
	Next   Act       `json:"next,omitempty"`
	NextAt time.Time `json:"next_at,omitzero"`
	// Last is when a client last did something, and Kind what; Clients are connected now.
	Last    time.Time `json:"last_activity,omitzero"`
	Kind    string    `json:"last_kind,omitempty"`
	Clients int       `json:"clients"`
	// Did is what the reaper last did with it.
	Did *Entry `json:"did,omitempty"`
}

// Books are what accounts are made of.
type Books struct {
	policy    func() Policy
	board     *activity.Board
	ledger    Ledger
	overrides Policies
}

// NewBooks returns the books of a job in a Consul, for users with the policy of the
// moment unless it has another for them.
func NewBooks(job string, p func() Policy, c *consul.Client, b *activity.Board) Books {
	return Books{policy: p, board: b, ledger: NewLedger(c, job), overrides: NewPolicies(c, job)}
}

// Account asks Consul about a user's sandbox, and returns an error if it does not tell all.
func (b Books) Account(ctx context.Context, u sandbox.User, running, asleep bool) (Account, error) {
	m, merr := b.board.Of(ctx, u)
	e, ok, eerr := b.ledger.Of(ctx, u)
	a := Account{Last: m.Last, Clients: m.Clients}
	if m.Kind != activity.None {
		a.Kind = m.Kind.String()
	}
	if ok {
		a.Did = &e
	}
	err := errors.Join(merr, eerr)
	if !running {
		return a, err
	}
	o, oerr := b.overrides.Of(ctx, u)
	now := time.Now()
	d := b.policy().With(o).Decide(now, now, m, asleep)
	if a.Why = d.Why; d.Act == Keep && d.Next != Keep {
		a.Next, a.NextAt = d.Next, d.At.UTC()
	}
	return a, errors.Join(err, oerr)
}
