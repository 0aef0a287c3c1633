package snapshot

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
)

func branchPrefix(u sandbox.User) string { return "users/" + string(u) + "/branch/" }

// Branch saves what a run left behind that may not save any more, since a newer
// one has taken over: whole, beside the user's line of snapshots, where nothing
// removes it but an operator. Nothing may change dir any more. It returns the branch's name. A second call for the
// same run changes nothing.
func Branch(ctx context.Context, st objstore.Store, m Memento, w Writer, dir *os.Root, o Options) (string, error) {
	name := fmt.Sprintf("%08d-%s", m.Epoch, w.Alloc)
	r := wholly(st, Head{User: m.User, Epoch: m.Epoch, Writer: w, Run: m.Run}, o)
	line, _, err := ReadHead(ctx, st, m.User)
	if err != nil {
		return "", fmt.Errorf("branch %s: %w", m.User, err)
	}
	r.head.Key = line.Key
	if r.sealer, err = unwrap(o.Keys, line); err != nil {
		return "", fmt.Errorf("branch %s: %w", m.User, err)
	}
	if err := r.whole(ctx, dir, fmt.Sprintf("%08d-branch-%s", m.Epoch, rand.Text())); err != nil {
		return "", fmt.Errorf("branch %s: %w", m.User, err)
	}
	raw, err := json.Marshal(r.head)
	if err != nil {
		return "", err
	}
	_, err = st.Put(ctx, branchPrefix(m.User)+name, bytes.NewReader(raw), objstore.IfAbsent())
	if err != nil && !errors.Is(err, objstore.ErrPrecondition) {
		return "", fmt.Errorf("branch %s: %w", m.User, err)
	}
	return name, nil
}

// wholly is a run that saves one tree as a whole, beside any line of snapshots.
func wholly(st objstore.Store, h Head, o Options) *Run {
	h.Version, h.State, h.Write, h.Claimed = formatVersion, StateClean, rand.Text(), time.Now().UTC()
	o.IndexFile = ""
	return &Run{store: st, opts: o, skip: newExcluder(o.Excludes), quiet: newExcluder(o.Quiet), restored: true, index: newIndex(), head: h}
}

// whole sends the tree in dir as one segment of that name; the run's head then says
// that it is all there is.
func (r *Run) whole(ctx context.Context, dir *os.Root, name string) error {
	c, err := r.Still(ctx, dir)
	if err != nil {
		return err
	}
	seg := r.newSegment(ctx, name)
	defer seg.close()
	if _, err := seg.add(c, r.index); err != nil {
		return err
	}
	ref, err := r.upload(seg)
	if err != nil {
		return err
	}
	h := &r.head
	h.Files, h.Bytes, h.Saved, h.Segments = c.files, c.bytes, time.Now().UTC(), []segmentRef{ref}
	return nil
}

// Branches are the names of a user's branches, oldest epoch first.
func Branches(ctx context.Context, st objstore.Store, u sandbox.User) ([]string, error) {
	var out []string
	for info, err := range st.List(ctx, branchPrefix(u)) {
		if err != nil {
			return nil, fmt.Errorf("list the branches of %s: %w", u, err)
		}
		out = append(out, path.Base(info.Key))
	}
	slices.Sort(out)
	return out, nil
}

// ReadBranch returns a branch's head. It returns ErrNoVersion, ErrCorrupt or the
// store's error.
func ReadBranch(ctx context.Context, st objstore.Store, u sandbox.User, name string) (*Head, error) {
	p, _, err := readHead(ctx, st, u, branchPrefix(u)+name)
	if isNotFound(err) {
		return nil, fmt.Errorf("branch %.100q of %s: %w", name, u, ErrNoVersion)
	}
	if err != nil {
		return nil, err
	}
	return &p.Head, nil
}
