package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
	"openclaw-sandbox/internal/spool"
)

// spoolEvery is how often spooled states are tried. It is well below
// unfinished_wait, so that a start elsewhere still meets what comes late.
const spoolEvery = 5 * time.Second

// uploadSpooled saves what earlier runs on this node could not, for as long as the
// plugin lives.
func (d *Driver) uploadSpooled() {
	tick := time.NewTicker(spoolEvery)
	defer tick.Stop()
	told := map[string]error{} // by folder: what was last said of it
	for {
		entries, err := d.spool.List()
		if err != nil {
			d.log.Error("a state that was not saved can not be read", "error", err)
		}
		for _, e := range entries {
			err := d.upload(e)
			if err == nil {
				delete(told, e.Dir())
				continue
			}
			if was := told[e.Dir()]; was == nil || trouble(was) != trouble(err) { // not every few seconds
				d.log.Warn("a state of this node waits for the object store", "user", e.Memento.User, "since", e.Since, "folder", e.Dir(), "error", err)
			}
			told[e.Dir()] = err
			if errors.Is(err, objstore.ErrUnreachable) {
				break // for the others too
			}
		}
		select {
		case <-d.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// upload saves one spooled state.
func (d *Driver) upload(e spool.Entry) error {
	d.spooling.Lock()
	defer d.spooling.Unlock()
	if _, err := os.Lstat(e.Dir()); errors.Is(err, os.ErrNotExist) {
		return nil // saved meanwhile
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.settings.timeout)
	defer cancel()
	branch, err := e.Upload(ctx, d.store, d.settings.snapshot)
	switch {
	case err != nil:
		return err
	case branch != "":
		d.log.Error("a state came too late, a newer run exists: it is kept as a branch, `sandboxctl restore --branch` has it back",
			"user", e.Memento.User, "branch", branch, "alloc", e.Writer.Alloc)
	default:
		d.log.Info("a state that waited on this node was saved", "user", e.Memento.User, "alloc", e.Writer.Alloc, "since", e.Since)
	}
	return nil
}

// settle saves what this node still has of a user, before a start of that user: it
// is newer than what the store has.
func (d *Driver) settle(u sandbox.User) error {
	entries, err := d.spool.Of(u)
	if err != nil {
		d.log.Error("a state that was not saved can not be read", "error", err)
	}
	for _, e := range entries {
		if err := d.upload(e); err != nil {
			return fmt.Errorf("save what waits on this node since %s: %w", e.Since.Format(time.RFC3339), err)
		}
	}
	return nil
}

// awaitUnfinished gives a run of this user that ended on another node without a
// last save some time to send it: its node may be about to. It tells whether the
// user is new, and returns an error if nothing came and the operator wants no start
// then.
func (t *task) awaitUnfinished(ctx context.Context) (fresh bool, err error) {
	poll := time.NewTicker(unfinishedPoll)
	defer poll.Stop()
	begin, told := time.Now(), false
	for {
		h, _, err := snapshot.ReadHead(ctx, t.d.store, t.user)
		switch {
		case err != nil:
			return errors.Is(err, objstore.ErrNotFound), nil // the claim will say what else is wrong
		case h.State == snapshot.StateClean, h.Writer.Node == t.cfg.NodeName:
			return h.Vacant(), nil
		case time.Since(begin) >= t.d.settings.unfinishedWait && t.d.settings.unfinishedStart:
			return false, nil
		case time.Since(begin) >= t.d.settings.unfinishedWait:
			return false, &sandbox.Failure{Reason: sandbox.ReasonUnfinished, Message: fmt.Sprintf("The last run of %s, on node %s, did not save its state at its end, and the operator wants no start from the older snapshot of %s; bring that node back, or set snapshot.unfinished_start.",
				t.user, h.Writer.Node, h.Saved.Format("2006-01-02 15:04:05 MST"))}
		}
		if !told {
			told = true
			t.d.note(t.cfg, "The last run, on node %s, has not saved its state at its end; waiting up to %s for it", h.Writer.Node, t.d.settings.unfinishedWait)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

const unfinishedPoll = time.Second

// leave keeps a state that could not be saved: in the spool, for later, or, if it
// can never be, in a folder for the operator.
func (t *task) leave(why error) {
	t.d.metrics.kept.Inc()
	what := trouble(why)
	if !errors.Is(why, snapshot.ErrTooLarge) {
		e, err := t.d.spool.Add(t.memento, t.writer(), t.dirs.State, t.indexFile())
		if err == nil {
			t.d.log.Error("the final snapshot failed, the state waits on this node", "user", t.user, "alloc", t.cfg.AllocID, "folder", e.Dir(), "error", why)
			t.d.note(t.cfg, "Final snapshot failed: %s. The state is kept on this node in %s and will be saved as soon as that is possible", what, e.Dir())
			return
		}
		why = errors.Join(why, err)
	}
	t.kept = filepath.Join(t.d.settings.dataDir, "unsaved", string(t.user)+"-"+t.cfg.AllocID)
	t.d.log.Error("the final snapshot failed", "user", t.user, "alloc", t.cfg.AllocID, "kept", t.kept, "error", why)
	t.d.note(t.cfg, "Final snapshot failed: %s. The state of this run is kept on the node in %s", what, t.kept)
}

// branch saves the state of a run that another has taken over from beside the line.
func (t *task) branch() error {
	t.d.metrics.fenced.Inc()
	ctx, cancel := context.WithTimeout(t.d.ctx, t.d.settings.timeout)
	defer cancel()
	dir, err := os.OpenRoot(t.dirs.State)
	if err != nil {
		return fmt.Errorf("open the state: %w", err)
	}
	defer dir.Close()
	name, err := snapshot.Branch(ctx, t.d.store, t.memento, t.writer(), dir, t.options())
	if err != nil {
		return err
	}
	t.d.note(t.cfg, "The state of this run is kept as branch %s", name)
	return nil
}

func (t *task) writer() snapshot.Writer {
	return snapshot.Writer{Alloc: t.cfg.AllocID, Node: t.cfg.NodeName}
}

func (t *task) indexFile() string { return filepath.Join(t.dirs.Run, ".index") }
