package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
)

// Tidied says what a Tidy removed, or would.
type Tidied struct {
	Versions  int   `json:"versions"`  // kept snapshots that the retention let go
	Segments  int   `json:"segments"`  // deleted
	Bytes     int64 `json:"bytes"`     // of these
	Condemned int   `json:"condemned"` // segments that nothing names, deleted once their grace is over
}

// TidyOptions are the settings of Tidy.
type TidyOptions struct {
	Retention Retention
	// Grace is how long nothing may name a segment before it is deleted. It must be
	// longer than any save, claim or restore of an older snapshot takes.
	Grace time.Duration
	// Every is how long ago the last Tidy must be; 0 does not ask.
	Every time.Duration
	// DryRun changes nothing.
	DryRun bool
}

// DefaultGrace and DefaultTidyEvery are what the driver's settings begin with.
const (
	DefaultGrace     = 24 * time.Hour
	DefaultTidyEvery = 24 * time.Hour
)

// condemned is the object that remembers since when nothing names a segment.
type condemned struct {
	At       time.Time            `json:"at"` // of the last Tidy
	Segments map[string]time.Time `json:"segments"`
}

func gcKey(u sandbox.User) string { return "users/" + string(u) + "/gc" }

// Tidy lets kept snapshots go that the retention does not want, and deletes the
// segments that neither the head nor a kept snapshot names. It works in two steps,
// so that it can not take away what somebody is about to name: a segment is first
// condemned, and deleted by a later Tidy that, a grace period on, still finds it
// named by nobody. Segments of epochs after the head's that it read are not looked
// at. Two Tidies at once do no harm. It returns the store's error, or ErrCorrupt if
// it can not tell what is named; then it deletes no segment.
func Tidy(ctx context.Context, st objstore.Store, u sandbox.User, o TidyOptions) (Tidied, error) {
	var out Tidied
	was, err := readCondemned(ctx, st, u)
	if err != nil {
		return out, fmt.Errorf("tidy %s: %w", u, err)
	}
	now := time.Now().UTC()
	if o.Every > 0 && now.Sub(was.At) < o.Every {
		return out, nil
	}
	kept, err := listVersions(ctx, st, historyPrefix(u))
	if err != nil {
		return out, fmt.Errorf("tidy %s: %w", u, err)
	}
	drop := map[string]bool{}
	for _, v := range o.Retention.expired(kept) {
		out.Versions++
		drop[v.key] = true
		if !o.DryRun {
			if err := st.Delete(ctx, v.key); err != nil {
				return out, fmt.Errorf("tidy %s: %w", u, err)
			}
		}
	}
	// The list comes before the names: what is written in between is not in it.
	stored := map[string]int64{}
	for info, err := range st.List(ctx, segmentKey(u, "")) {
		if err != nil {
			return out, fmt.Errorf("tidy %s: %w", u, err)
		}
		stored[path.Base(info.Key)] = info.Size
	}
	named, head, err := namedSegments(ctx, st, u, drop)
	if err != nil {
		return out, fmt.Errorf("tidy %s: %w", u, err)
	}
	next := condemned{At: now, Segments: map[string]time.Time{}}
	for name, size := range stored {
		if named[name] || epochOf(name) > head.Epoch {
			continue
		}
		since, before := was.Segments[name]
		if !before {
			since = now
		}
		if !before || now.Sub(since) < o.Grace {
			next.Segments[name] = since
			out.Condemned++
			continue
		}
		out.Segments++
		out.Bytes += size
		if o.DryRun {
			continue
		}
		if err := st.Delete(ctx, segmentKey(u, name)); err != nil {
			return out, fmt.Errorf("tidy %s: %w", u, err)
		}
	}
	if o.DryRun {
		return out, nil
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return out, err
	}
	if _, err := st.Put(ctx, gcKey(u), bytes.NewReader(raw), objstore.Condition{}); err != nil {
		return out, fmt.Errorf("tidy %s: %w", u, err)
	}
	return out, nil
}

// namedSegments are those that the head, a kept snapshot or a branch names; and the head.
func namedSegments(ctx context.Context, st objstore.Store, u sandbox.User, without map[string]bool) (map[string]bool, *Head, error) {
	named := map[string]bool{}
	for _, prefix := range []string{pinnedPrefix(u), historyPrefix(u), branchPrefix(u)} {
		for info, err := range st.List(ctx, prefix) {
			if err != nil {
				return nil, nil, fmt.Errorf("list what names segments: %w", err)
			}
			if without[info.Key] {
				continue
			}
			p, _, err := readHead(ctx, st, u, info.Key)
			if errors.Is(err, objstore.ErrNotFound) {
				continue // let go meanwhile
			}
			if err != nil {
				return nil, nil, err
			}
			for _, s := range p.Segments {
				named[s.Name] = true
			}
		}
	}
	// The head last: what it named a moment ago is in the history by then, or was condemned long before.
	head, _, err := ReadHead(ctx, st, u)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range head.Segments {
		named[s.Name] = true
	}
	return named, head, nil
}

func readCondemned(ctx context.Context, st objstore.Store, u sandbox.User) (condemned, error) {
	body, _, err := st.Get(ctx, gcKey(u))
	if errors.Is(err, objstore.ErrNotFound) {
		return condemned{}, nil
	}
	if err != nil {
		return condemned{}, err
	}
	defer body.Close()
	var c condemned
	raw, err := io.ReadAll(io.LimitReader(body, maxHeadSize))
	if err != nil {
		return c, fmt.Errorf("%w: %w", objstore.ErrUnreachable, err)
	}
	if json.Unmarshal(raw, &c) != nil {
		return condemned{}, nil // it only delays
	}
	return c, nil
}

// epochOf is the epoch in a segment's name; one that has none is of epoch 0.
func epochOf(name string) uint64 {
	var n uint64
	digits, _, _ := strings.Cut(name, "-")
	fmt.Sscanf(digits, "%d", &n)
	return n
}
