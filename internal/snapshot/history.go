package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
)

// Retention says which snapshots a user keeps besides the newest. Each rule keeps
// what it keeps; a snapshot goes when no rule wants it. Pinned ones stay anyway.
type Retention struct {
	// Every is how far apart kept snapshots are at least, but for the last of a run.
	Every time.Duration
	// Last is how many of the newest are kept; Hourly and Daily for how many hours
	// and days with snapshots the newest of each.
	Last, Hourly, Daily int
}

// DefaultRetention is what the driver's settings begin with.
func DefaultRetention() Retention {
	return Retention{Every: 10 * time.Minute, Last: 20, Hourly: 24, Daily: 14}
}

// Version is a snapshot that can be had back.
type Version struct {
	Seq     uint64    `json:"seq"`
	Saved   time.Time `json:"saved"`
	Pinned  bool      `json:"pinned"`
	Newest  bool      `json:"newest"`            // the head itself
	Comment string    `json:"comment,omitempty"` // of a pinned one

	key string
}

// pinned is a head that somebody wants kept.
type pinned struct {
	Head
	Comment string `json:"comment,omitempty"`
}

const stampLayout = "20060102T150405Z"

func historyPrefix(u sandbox.User) string { return "users/" + string(u) + "/history/" }

func pinnedPrefix(u sandbox.User) string { return "users/" + string(u) + "/pinned/" }

// versionName orders by sequence and tells the time, so that a listing is enough
// for the retention.
func versionName(h *Head) string {
	return fmt.Sprintf("%012d-%s", h.Seq, h.Saved.UTC().Format(stampLayout))
}

func parseVersion(key string) (Version, error) {
	seq, stamp, ok := strings.Cut(path.Base(key), "-")
	n, err := strconv.ParseUint(seq, 10, 64)
	at, terr := time.Parse(stampLayout, stamp)
	if err := errors.Join(err, terr); err != nil || !ok {
		return Version{}, fmt.Errorf("%.200q is no name of a kept snapshot", key)
	}
	return Version{Seq: n, Saved: at, key: key}, nil
}

// Versions are a user's snapshots, newest first: the head, the pinned, the kept. A
// snapshot that is both pinned and kept is listed as pinned.
func Versions(ctx context.Context, st objstore.Store, u sandbox.User) ([]Version, error) {
	head, _, err := ReadHead(ctx, st, u)
	if err != nil {
		return nil, err
	}
	var out []Version
	if head.Seq > 0 {
		out = append(out, Version{Seq: head.Seq, Saved: head.Saved, Newest: true, key: headKey(u)})
	}
	for _, prefix := range []string{pinnedPrefix(u), historyPrefix(u)} {
		found, err := listVersions(ctx, st, prefix)
		if err != nil {
			return nil, err
		}
		for _, v := range found {
			if v.Pinned = prefix == pinnedPrefix(u); v.Pinned {
				v.Comment = comment(ctx, st, u, v.key)
			}
			if !slices.ContainsFunc(out, func(o Version) bool { return o.Seq == v.Seq && (o.Pinned || !v.Pinned) }) {
				out = append(out, v)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Version) int { return int(b.Seq) - int(a.Seq) })
	return out, nil
}

// comment is why a snapshot is pinned. It is for people: what can not be read does
// not hide the others.
func comment(ctx context.Context, st objstore.Store, u sandbox.User, key string) string {
	p, _, err := readHead(ctx, st, u, key)
	if err != nil {
		return "(not readable: " + err.Error() + ")"
	}
	return p.Comment
}

func listVersions(ctx context.Context, st objstore.Store, prefix string) ([]Version, error) {
	var out []Version
	for info, err := range st.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list the kept snapshots: %w", err)
		}
		v, err := parseVersion(info.Key)
		if err != nil {
			continue // not ours
		}
		out = append(out, v)
	}
	return out, nil
}

// ErrNoVersion: there is no such snapshot, or it is not kept any more.
var ErrNoVersion = errors.New("no such snapshot is kept")

// ReadVersion returns the head of a kept snapshot; seq 0 is the newest. It returns
// ErrNoVersion, ErrCorrupt or the store's error.
func ReadVersion(ctx context.Context, st objstore.Store, u sandbox.User, seq uint64) (*Head, error) {
	if seq == 0 {
		h, _, err := ReadHead(ctx, st, u)
		if err == nil && h.Seq == 0 {
			return nil, fmt.Errorf("%s has not saved yet: %w", u, ErrNoVersion)
		}
		return h, err
	}
	versions, err := Versions(ctx, st, u)
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		if v.Seq == seq {
			h, _, err := readHead(ctx, st, u, v.key)
			if err != nil {
				return nil, err
			}
			return &h.Head, nil
		}
	}
	return nil, fmt.Errorf("snapshot %d of %s: %w", seq, u, ErrNoVersion)
}

// keepVersion writes a copy of a head that is, or was, committed.
func keepVersion(ctx context.Context, st objstore.Store, prefix string, p pinned) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	cond := objstore.IfAbsent()
	if p.Comment != "" {
		cond = objstore.Condition{}
	}
	_, err = st.Put(ctx, prefix+versionName(&p.Head), bytes.NewReader(raw), cond)
	if err != nil && !errors.Is(err, objstore.ErrPrecondition) { // it is kept already
		return fmt.Errorf("keep snapshot %d: %w", p.Seq, err)
	}
	return nil
}

// keep adds the head to the history, if it is time. The caller holds mu.
func (r *Run) keep(ctx context.Context, final bool) error {
	if r.head.Seq == r.keptSeq || r.head.Seq == 0 || (!final && time.Since(r.keptAt) < r.opts.Retention.Every) {
		return nil
	}
	if err := keepVersion(ctx, r.store, historyPrefix(r.head.User), pinned{Head: r.head}); err != nil {
		return err
	}
	r.keptSeq, r.keptAt = r.head.Seq, time.Now()
	return nil
}

// Pin keeps a snapshot until it is unpinned.
func Pin(ctx context.Context, st objstore.Store, u sandbox.User, seq uint64, comment string) error {
	h, err := ReadVersion(ctx, st, u, seq)
	if err != nil {
		return err
	}
	return keepVersion(ctx, st, pinnedPrefix(u), pinned{Head: *h, Comment: comment})
}

// Unpin leaves a snapshot to the retention again. It returns ErrNoVersion if it is
// not pinned.
func Unpin(ctx context.Context, st objstore.Store, u sandbox.User, seq uint64) error {
	found, err := listVersions(ctx, st, pinnedPrefix(u))
	if err != nil {
		return err
	}
	for _, v := range found {
		if v.Seq != seq {
			continue
		}
		// Through the history, so that its segments are named all the time.
		p, _, err := readHead(ctx, st, u, v.key)
		if err != nil {
			return err
		}
		p.Comment = ""
		if err := keepVersion(ctx, st, historyPrefix(u), *p); err != nil {
			return err
		}
		return st.Delete(ctx, v.key)
	}
	return fmt.Errorf("snapshot %d of %s is not pinned: %w", seq, u, ErrNoVersion)
}

// expired chooses the kept snapshots that no rule wants.
func (k Retention) expired(all []Version) []Version {
	newest := slices.SortedFunc(slices.Values(all), func(a, b Version) int { return int(b.Seq) - int(a.Seq) })
	hours, days := map[string]bool{}, map[string]bool{}
	var out []Version
	for i, v := range newest {
		wanted := i < k.Last
		for _, rule := range []struct {
			seen  map[string]bool
			until int
			of    string
		}{{hours, k.Hourly, v.Saved.UTC().Format("2006-01-02T15")}, {days, k.Daily, v.Saved.UTC().Format(time.DateOnly)}} {
			if !rule.seen[rule.of] && len(rule.seen) < rule.until {
				rule.seen[rule.of] = true
				wanted = true
			}
		}
		if !wanted {
			out = append(out, v)
		}
	}
	return out
}
