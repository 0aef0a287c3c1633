package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
)

// ErrInUse: the head says that a run of this user is under way, or was cut off.
var ErrInUse = errors.New("a sandbox of this user is running, or ended without saving")

// Users yields the users who have state in the store, in no promised order.
func Users(ctx context.Context, st objstore.Store) ([]sandbox.User, error) {
	var out []sandbox.User
	for info, err := range st.List(ctx, "users/") {
		if err != nil {
			return nil, fmt.Errorf("list the users: %w", err)
		}
		rest, isHead := strings.CutSuffix(strings.TrimPrefix(info.Key, "users/"), "/head")
		if u, err := sandbox.ParseUser(rest); isHead && err == nil {
			out = append(out, u)
		}
	}
	return out, nil
}

// Rewind makes a kept snapshot, or a branch, the newest again. What was the newest
// goes into the history first. A run that is under way is fenced: its next save is
// refused, it leaves a branch and ends. So Rewind returns ErrInUse then, unless
// force.
func Rewind(ctx context.Context, st objstore.Store, u sandbox.User, to *Head, force bool) (*Head, error) {
	now, etag, err := ReadHead(ctx, st, u)
	if err != nil {
		return nil, err
	}
	if now.State != StateClean && !force {
		return nil, fmt.Errorf("rewind %s: %w", u, ErrInUse)
	}
	if now.Seq > 0 {
		if err := keepVersion(ctx, st, historyPrefix(u), pinned{Head: *now}); err != nil {
			return nil, err
		}
	}
	next := to.anew(fmt.Sprintf("rewound to epoch %d, snapshot %d", to.Epoch, to.Seq))
	next.Epoch, next.Seq = now.Epoch+1, now.Seq+1
	if _, err := writeHead(ctx, st, &next, etag, nil); err != nil {
		return nil, fmt.Errorf("rewind %s: %w", u, err)
	}
	return &next, nil
}

// anew is a copy of h that an operator is about to write; how says what was done.
func (h *Head) anew(how string) Head {
	next, now := *h, time.Now().UTC()
	next.Version, next.State, next.Run, next.Write = formatVersion, StateClean, rand.Text(), rand.Text()
	next.Writer, next.Claimed, next.Saved = Writer{Node: how}, now, now
	return next
}

// ErrExists: the user has state already.
var ErrExists = errors.New("the user has state already")

// Vacant says that the user has no state: no run has saved any, and none is under way.
func (h *Head) Vacant() bool { return h.Seq == 0 && len(h.Segments) == 0 && h.State == StateClean }

// vacant returns the epoch and the ETag of a vacant head, which may not be there at
// all, or ErrExists.
func vacant(ctx context.Context, st objstore.Store, u sandbox.User) (epoch uint64, etag string, err error) {
	h, etag, err := ReadHead(ctx, st, u)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return 0, "", nil
	case err != nil:
		return 0, "", err
	case !h.Vacant():
		return 0, "", ErrExists
	}
	return h.Epoch, etag, nil
}

// Fork gives a new user the state of a kept snapshot (seq 0: the newest) of
// another. It returns ErrExists if the new one has state.
func Fork(ctx context.Context, st objstore.Store, from sandbox.User, seq uint64, to sandbox.User, keys *Keys, progress func(done, total int64)) (*Head, error) {
	h, err := ReadVersion(ctx, st, from, seq)
	if err != nil {
		return nil, err
	}
	epoch, etag, err := vacant(ctx, st, to)
	if err != nil {
		return nil, fmt.Errorf("fork to %s: %w", to, err)
	}
	var done, total int64
	for _, s := range h.Segments {
		total += s.Size
	}
	for _, s := range h.Segments {
		if err := copyObject(ctx, st, segmentKey(from, s.Name), segmentKey(to, s.Name), s.Size); err != nil {
			return nil, fmt.Errorf("fork to %s: %w", to, err)
		}
		if done += s.Size; progress != nil {
			progress(done, total)
		}
	}
	next := h.anew(fmt.Sprintf("forked from snapshot %d of %s", h.Seq, from))
	next.User, next.Epoch = to, max(h.Epoch, epoch)+1
	key, err := unwrap(keys, h)
	if err != nil {
		return nil, fmt.Errorf("fork to %s: %w", to, err)
	}
	if key != nil {
		if next.Key, err = key.wrap(keys, to); err != nil {
			return nil, fmt.Errorf("fork to %s: %w", to, err)
		}
	}
	if _, err := writeHead(ctx, st, &next, etag, nil); err != nil {
		return nil, fmt.Errorf("fork to %s: %w", to, err)
	}
	return &next, nil
}

// copyObject copies by way of this process: a store's own copy is not among its verbs.
func copyObject(ctx context.Context, st objstore.Store, from, to string, size int64) error {
	body, err := st.GetRange(ctx, from, 0, size)
	if isNotFound(err) {
		return fmt.Errorf("%w: %s is gone", ErrCorrupt, from)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	return st.Upload(ctx, to, &exactly{body, from, size})
}

// exactly is a body that fails if it ends before it has n bytes.
type exactly struct {
	io.Reader
	name string
	n    int64
}

func (r *exactly) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.n -= int64(n); err == io.EOF && r.n != 0 {
		err = fmt.Errorf("%w: %s lacks %d bytes", ErrCorrupt, r.name, r.n)
	}
	return n, err
}

// Import gives a new user the state that lies in dir, which nothing may change
// meanwhile. All of it is in the store before the user's head says so: a cut-off
// import leaves the user as new as before. It returns ErrExists if the user has state,
// and ErrFenced if somebody gave them one at the same time.
func Import(ctx context.Context, st objstore.Store, u sandbox.User, dir *os.Root, o Options) (*Head, error) {
	epoch, etag, err := vacant(ctx, st, u)
	if err != nil {
		return nil, fmt.Errorf("import to %s: %w", u, err)
	}
	r := wholly(st, Head{User: u, Epoch: epoch + 1, Seq: 1, Writer: Writer{Node: "import"}, Run: rand.Text()}, o)
	if r.sealer, err = seal(o.Keys, &r.head); err != nil {
		return nil, fmt.Errorf("import to %s: %w", u, err)
	}
	if err := r.whole(ctx, dir, fmt.Sprintf("%08d-%08d-%s", r.head.Epoch, r.head.Seq, rand.Text())); err != nil {
		return nil, fmt.Errorf("import to %s: %w", u, err)
	}
	if _, err := writeHead(ctx, st, &r.head, etag, nil); err != nil {
		return nil, fmt.Errorf("import to %s: %w", u, err)
	}
	if err := r.keep(ctx, true); err != nil {
		return nil, fmt.Errorf("import to %s: %w", u, err)
	}
	return &r.head, nil
}

// Usage is what a user's objects take.
type Usage struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Head    int64 `json:"head"`    // of these, in segments that the newest snapshot names
	History int64 `json:"history"` // in further segments that only older snapshots name
	Unnamed int64 `json:"unnamed"` // in segments that nothing names
}

// Use adds up a user's objects.
func Use(ctx context.Context, st objstore.Store, u sandbox.User) (Usage, error) {
	var out Usage
	named, head, err := namedSegments(ctx, st, u, nil)
	if err != nil {
		return out, err
	}
	current := map[string]bool{}
	for _, s := range head.Segments {
		current[s.Name] = true
	}
	for info, err := range st.List(ctx, "users/"+string(u)+"/") {
		if err != nil {
			return out, fmt.Errorf("list %s: %w", u, err)
		}
		out.Objects++
		out.Bytes += info.Size
		name, isSegment := strings.CutPrefix(info.Key, segmentKey(u, ""))
		switch {
		case !isSegment:
		case current[name]:
			out.Head += info.Size
		case named[name]:
			out.History += info.Size
		default:
			out.Unnamed += info.Size
		}
	}
	return out, nil
}
