// Package spool keeps states on a node that could not be saved, durably, until
// they can: each is a folder, with the state as the sandbox left it and what its
// run needs to go on.
package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

const (
	stateName = "state"
	indexName = "index"
	runName   = "run.json"
)

// Spool is a folder of states. Its owner sees to it that an entry is uploaded once
// at a time.
type Spool struct{ dir string }

// Entry is one state.
type Entry struct {
	Memento snapshot.Memento `json:"memento"`
	Writer  snapshot.Writer  `json:"writer"`
	Since   time.Time        `json:"since"`

	dir string
}

// unready begins the name of an entry that is being made.
const unready = "."

// Open makes the folder if need be, and ends what a crash cut off.
func Open(dir string) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	for _, n := range names {
		name, cut := strings.CutPrefix(n.Name(), unready)
		if !cut {
			continue
		}
		half := filepath.Join(dir, n.Name())
		_, err := os.Lstat(filepath.Join(half, stateName))
		switch {
		case err == nil:
			err = os.Rename(half, filepath.Join(dir, name))
		case errors.Is(err, fs.ErrNotExist):
			err = os.RemoveAll(half) // the state is where it was
		}
		if err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
	}
	return &Spool{dir}, nil
}

// Reserve makes a place for the state of a run that begins, so that Add needs no
// room: a state may have to wait just because the disk is full.
func (s *Spool) Reserve(m snapshot.Memento, w snapshot.Writer) error {
	_, _, err := s.place(m, w)
	return err
}

// place makes the folder in which an entry grows, or finds the one that is reserved.
func (s *Spool) place(m snapshot.Memento, w snapshot.Writer) (e Entry, half string, err error) {
	name := string(m.User) + "-" + w.Alloc
	e = Entry{Memento: m, Writer: w, Since: time.Now().UTC(), dir: filepath.Join(s.dir, name)}
	half = filepath.Join(s.dir, unready+name)
	raw, err := json.Marshal(e)
	if err == nil {
		err = os.MkdirAll(half, 0o700)
	}
	if err == nil {
		err = write(filepath.Join(half, runName), raw)
	}
	if err != nil {
		err = fmt.Errorf("spool: %w", err)
	}
	return e, half, err
}

// Release gives back what Reserve took, for a run that has saved its state. A state
// that Add could not put in its place stays.
func (s *Spool) Release(m snapshot.Memento, w snapshot.Writer) error {
	half := filepath.Join(s.dir, unready+string(m.User)+"-"+w.Alloc)
	if _, err := os.Lstat(filepath.Join(half, stateName)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Add moves a run's state folder, and its index if there is one, into the spool,
// on the same file system. When it returns, they survive a crash of the node.
func (s *Spool) Add(m snapshot.Memento, w snapshot.Writer, state, index string) (Entry, error) {
	e, half, err := s.place(m, w)
	if _, reserved := os.Lstat(filepath.Join(half, runName)); err != nil && reserved != nil {
		return e, err
	}
	if err := os.Rename(index, filepath.Join(half, indexName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return e, fmt.Errorf("spool: %w", err)
	}
	if err := os.Rename(state, filepath.Join(half, stateName)); err != nil {
		return e, fmt.Errorf("spool: %w", err)
	}
	if err := errors.Join(syncTree(half), os.Rename(half, e.dir), syncDir(s.dir)); err != nil {
		return e, fmt.Errorf("spool: %w", err)
	}
	return e, nil
}

// List returns what is spooled, oldest epoch first. An entry that can not be read
// is an error beside the others: it is not to be lost sight of.
func (s *Spool) List() ([]Entry, error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var out []Entry
	var errs []error
	for _, n := range names {
		if strings.HasPrefix(n.Name(), unready) {
			continue
		}
		e := Entry{dir: filepath.Join(s.dir, n.Name())}
		raw, err := os.ReadFile(filepath.Join(e.dir, runName))
		if err == nil {
			err = json.Unmarshal(raw, &e)
		}
		if err == nil {
			_, err = sandbox.ParseUser(string(e.Memento.User))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("spool: %s is incomplete, look at it by hand: %w", e.dir, err))
			continue
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return strings.Compare(fmt.Sprintf("%s-%020d", a.Memento.User, a.Memento.Epoch), fmt.Sprintf("%s-%020d", b.Memento.User, b.Memento.Epoch))
	})
	return out, errors.Join(errs...)
}

// Of returns the entries of one user.
func (s *Spool) Of(u sandbox.User) ([]Entry, error) {
	all, err := s.List()
	return slices.DeleteFunc(all, func(e Entry) bool { return e.Memento.User != u }), err
}

// Dir is where the entry lies.
func (e Entry) Dir() string { return e.dir }

// Upload saves the state, as the run's last snapshot, or, if a newer run has taken
// over meanwhile, as a branch whose name it returns. Then it removes the entry. It
// returns the store's error, and leaves the entry.
func (e Entry) Upload(ctx context.Context, st objstore.Store, o snapshot.Options) (branch string, err error) {
	o.IndexFile = filepath.Join(e.dir, indexName)
	dir, err := os.OpenRoot(filepath.Join(e.dir, stateName))
	if err != nil {
		return "", fmt.Errorf("spool: %w", err)
	}
	defer dir.Close()
	err = e.save(ctx, st, dir, o)
	if errors.Is(err, snapshot.ErrFenced) {
		branch, err = snapshot.Branch(ctx, st, e.Memento, e.Writer, dir, o)
	}
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(e.dir); err != nil {
		return branch, fmt.Errorf("spool: %w", err)
	}
	return branch, nil
}

func (e Entry) save(ctx context.Context, st objstore.Store, dir *os.Root, o snapshot.Options) error {
	run, err := snapshot.Resume(ctx, st, e.Memento, o)
	if err != nil {
		return err
	}
	c, err := run.Still(ctx, dir)
	if err != nil {
		return err
	}
	_, err = run.Commit(ctx, c, true)
	return err
}
