package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
)

// Run is one run of a user's sandbox: the right to save, from Claim until a
// newer claim. Its methods may be called from several goroutines; saves go one
// after another.
type Run struct {
	store objstore.Store
	opts  Options
	skip  excluder
	quiet excluder

	sealer *sealer // nil: the state is not encrypted

	mu       sync.Mutex // held through each of Restore, Capture, Commit
	head     Head
	etag     string
	unclear  []string // Write ids of head writes whose outcome is not known
	prior    State    // what the head said before the claim
	restored bool
	fenced   bool
	index    *index
	keptSeq  uint64 // the last snapshot that went into the history, and when
	keptAt   time.Time
	worn     map[string]bool // segments that the next save writes anew
	ahead    *state          // what Claim read for Restore; nil if it could not be read
}

// Memento is what a run needs to go on after its process was replaced. It is
// not secret.
type Memento struct {
	User     sandbox.User `json:"user"`
	Epoch    uint64       `json:"epoch"`
	Run      string       `json:"run"`
	Restored bool         `json:"restored"`
}

// Claim takes the user's state for a new run: from now on no earlier run can
// save. It returns ErrFenced if another start claimed at the same time,
// ErrCorrupt if the head can not be right, or the store's error.
func Claim(ctx context.Context, st objstore.Store, u sandbox.User, w Writer, o Options) (*Run, error) {
	head, etag, err := ReadHead(ctx, st, u)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		head = &Head{Version: formatVersion, User: u, State: StateClean}
	case err != nil:
		return nil, fmt.Errorf("claim %s: %w", u, err)
	}
	r := &Run{store: st, opts: o, skip: newExcluder(o.Excludes), quiet: newExcluder(o.Quiet), head: *head, etag: etag, prior: head.State, index: newIndex(), keptAt: time.Now()}
	next := r.head
	next.Epoch++
	next.State, next.Writer, next.Run, next.Claimed = StateRunning, w, rand.Text(), time.Now().UTC()
	if r.sealer, err = seal(o.Keys, &next); err != nil {
		return nil, fmt.Errorf("claim %s: %w", u, err)
	}
	// What a restore reads first is read while the claim is on its way: no claim changes
	// it. What could not be read Restore reads again, and says why.
	rctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ahead := make(chan *state, 1)
	go func(rd *reader) {
		s, err := rd.state(rctx)
		if err != nil {
			s = nil
		}
		ahead <- s
	}(r.reader())
	if err = r.putHead(ctx, next); err != nil {
		cancel()
	}
	r.ahead = <-ahead
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", u, err)
	}
	return r, nil
}

// Resume goes on with a run whose process was replaced, in the same epoch. It
// returns ErrFenced if a newer run exists.
func Resume(ctx context.Context, st objstore.Store, m Memento, o Options) (*Run, error) {
	head, etag, err := ReadHead(ctx, st, m.User)
	if err != nil {
		return nil, fmt.Errorf("resume %s: %w", m.User, err)
	}
	if head.Run != m.Run || head.Epoch != m.Epoch {
		return nil, fmt.Errorf("resume %s in epoch %d: %w (epoch %d)", m.User, m.Epoch, ErrFenced, head.Epoch)
	}
	r := &Run{store: st, opts: o, skip: newExcluder(o.Excludes), quiet: newExcluder(o.Quiet), head: *head, etag: etag, prior: StateClean, restored: m.Restored, index: newIndex(), keptAt: time.Now()}
	if r.sealer, err = unwrap(o.Keys, head); err != nil {
		return nil, fmt.Errorf("resume %s: %w", m.User, err)
	}
	if !m.Restored {
		return r, nil
	}
	if kept, err := loadIndex(o.IndexFile, head.Write); err == nil {
		r.index = kept
		return r, nil
	}
	// What is committed is known by content only: the next capture copies every
	// file, and the commit sends those that differ.
	live, err := r.reader().state(ctx)
	if err != nil {
		return nil, fmt.Errorf("resume %s: %w", m.User, err)
	}
	r.index.fill(live)
	return r, nil
}

func (r *Run) reader() *reader {
	return &reader{store: r.store, user: r.head.User, opts: r.opts, segments: r.head.Segments, sealer: r.sealer}
}

// Memento is what Resume needs.
func (r *Run) Memento() Memento {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Memento{User: r.head.User, Epoch: r.head.Epoch, Run: r.head.Run, Restored: r.restored}
}

// Head is what this run last wrote.
func (r *Run) Head() Head {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head
}

// Abandon gives the claim back after a start that failed before the sandbox
// ran: the head says again what it said of the run before. What is committed
// was never touched.
func (r *Run) Abandon(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restored = false
	next := r.head
	next.State = r.prior
	if err := r.putHead(ctx, next); err != nil {
		return fmt.Errorf("abandon %s: %w", r.head.User, err)
	}
	return nil
}

// putHead writes next as the head and takes it over. The caller holds mu, or is
// alone with r.
func (r *Run) putHead(ctx context.Context, next Head) error {
	if r.fenced {
		return ErrFenced
	}
	next.Version = formatVersion // also of a run that an older driver began
	next.Write = rand.Text()
	etag, err := writeHead(ctx, r.store, &next, r.etag, r.unclear)
	switch {
	case errors.Is(err, ErrFenced):
		r.fenced = true
	case err != nil:
		// It may still have happened, or happen yet: not somebody else's, if it is found later.
		r.unclear = append(r.unclear, next.Write)
	}
	if err != nil {
		return err
	}
	r.head, r.etag, r.unclear = next, etag, nil
	return nil
}
