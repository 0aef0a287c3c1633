package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"openclaw-sandbox/internal/archive"
	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// welcome gives a new user what lies ready for them: the state that another program
// left at their place in the store, or a copy of the template's.
func (t *task) welcome(ctx context.Context) error {
	if took, err := t.takeOver(); took || err != nil {
		return err
	}
	from := t.d.settings.template
	if from == "" || from == t.user {
		return nil
	}
	_, err := snapshot.Fork(ctx, t.d.store, from, 0, t.user, t.d.settings.snapshot.Keys, t.d.restoreProgress(t.cfg))
	switch {
	case errors.Is(err, snapshot.ErrExists), errors.Is(err, snapshot.ErrFenced): // another start was quicker
		return nil
	case errors.Is(err, objstore.ErrNotFound), errors.Is(err, snapshot.ErrNoVersion):
		return &sandbox.Failure{Reason: sandbox.ReasonConfig, Err: err,
			Message: fmt.Sprintf("The template %s, with which a new user begins, has no state; start it once and save it, or clear snapshot.template in the plugin's config.", from)}
	case err != nil:
		return fmt.Errorf("begin with template %s: %w", from, err)
	}
	t.d.note(t.cfg, "A new user: beginning with the state of template %s", from)
	return nil
}

// takeOver makes what another program left at a new user's place in the store, a
// moltworker or an operator with a tar file, the user's first snapshot. The objects
// stay. It tells whether there was anything.
func (t *task) takeOver() (bool, error) {
	ctx, cancel := context.WithTimeout(t.d.ctx, t.d.settings.restore)
	defer cancel()
	found, size, err := archive.Found(ctx, t.d.store, "users/"+string(t.user))
	if err != nil || found == "" {
		return false, err
	}
	t.d.note(t.cfg, "A new user: taking over what lies at %s in the store", found)
	aside := filepath.Join(t.dirs.Run, ".import")
	if err := os.Mkdir(aside, 0o700); err != nil {
		return false, err
	}
	defer os.RemoveAll(aside)
	dir, err := os.OpenRoot(aside)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	o := t.d.settings.snapshot
	done, progress := int64(0), t.d.restoreProgress(t.cfg)
	read := func(n int64) { done += n; progress(done, size) }
	if err := archive.FromStore(ctx, t.d.store, found, dir, o.MaxBytes, o.MaxFiles, read); err != nil {
		return false, fmt.Errorf("take over what lies at %s in the store: %w", found, err)
	}
	_, err = snapshot.Import(ctx, t.d.store, t.user, dir, o)
	if errors.Is(err, snapshot.ErrExists) || errors.Is(err, snapshot.ErrFenced) { // another start was quicker
		err = nil
	}
	return true, err
}
