package webhook

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"openclaw-sandbox/internal/sandbox"
)

// maxBudgets bounds their memory. Who was forgotten begins anew.
const maxBudgets = 10_000

// budgets bound how often a hook is used for one user. Only what was verified
// counts, so that nobody can use up another's.
type budgets struct {
	mu   sync.Mutex
	seen *lru.Cache[budgetKey, *rate.Limiter]
}

type budgetKey struct {
	hook string
	user sandbox.User
}

func newBudgets() *budgets {
	seen, err := lru.New[budgetKey, *rate.Limiter](maxBudgets)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &budgets{seen: seen}
}

// spend takes one from the user's budget, or returns how long there is none.
func (b *budgets) spend(h Hook, u sandbox.User, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := budgetKey{h.Name, u}
	lim, ok := b.seen.Get(key)
	if !ok {
		lim = rate.NewLimiter(rate.Limit(float64(h.PerMinute)/60), h.PerMinute)
		b.seen.Add(key, lim)
	}
	r := lim.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}
