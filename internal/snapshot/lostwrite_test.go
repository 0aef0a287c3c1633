package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"openclaw-sandbox/internal/objstore"
)

// readFail makes Get fail while on is set.
type readFail struct {
	*countingStore
	on *atomic.Bool
}

func (s readFail) Get(ctx context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	if s.on.Load() {
		return nil, objstore.Info{}, fmt.Errorf("lost: %w", objstore.ErrUnreachable)
	}
	return s.countingStore.Get(ctx, key)
}

// The head's PUT did its work, its answer and the settling read were both lost.
func TestOwnLostWriteIsNotAFence(t *testing.T) {
	var off atomic.Bool
	st := readFail{&countingStore{Store: dirStore(t)}, &off}
	m := start(t, st)
	m.write("a", "1")
	st.fail = func(k string) (error, bool) {
		if strings.HasSuffix(k, "/head") {
			return fmt.Errorf("lost: %w", objstore.ErrUnreachable), true
		}
		return nil, false
	}
	off.Store(true)
	if _, err := m.save(false); !errors.Is(err, objstore.ErrUnreachable) {
		t.Fatalf("setup: %v", err)
	}
	st.fail = nil
	off.Store(false)
	m.write("b", "2")
	if _, err := m.save(false); err != nil {
		t.Errorf("the only run of this user can not save after the store came back: %v", err)
	}
}

// The same by a deadline on a store that is slow to answer.
func TestDeadlineInHeadWrite(t *testing.T) {
	st := &countingStore{Store: dirStore(t)}
	m := start(t, st)
	m.write("a", "1")
	c, err := m.run.Capture(t.Context(), m.root, filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	lost := false
	st.fail = func(k string) (error, bool) {
		if strings.HasSuffix(k, "/head") {
			lost = true
			return errors.Join(objstore.ErrUnreachable, context.DeadlineExceeded), true
		}
		return nil, false
	}
	gs := ctxStore{st, func() {
		if lost {
			cancel()
		}
	}}
	m.run.store = gs
	_, err = m.run.Commit(ctx, c, true)
	t.Logf("first: %v", err)
	st.fail, lost = nil, false
	if _, err := m.save(true); err != nil {
		t.Errorf("final save after a timed-out one: %v", err)
	}
}

// ctxStore honours the context in Get, as S3 does.
type ctxStore struct {
	*countingStore
	before func()
}

func (s ctxStore) Get(ctx context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	s.before()
	if err := ctx.Err(); err != nil {
		return nil, objstore.Info{}, errors.Join(objstore.ErrUnreachable, err)
	}
	return s.countingStore.Get(ctx, key)
}

// A foreign claim after an unclear write of ours is still a fence.
func TestForeignClaimAfterLostWrite(t *testing.T) {
	for _, done := range []bool{true, false} {
		var off atomic.Bool
		st := readFail{&countingStore{Store: dirStore(t)}, &off}
		m := start(t, st)
		m.write("a", "1")
		st.fail = func(k string) (error, bool) {
			if strings.HasSuffix(k, "/head") {
				return fmt.Errorf("lost: %w", objstore.ErrUnreachable), done
			}
			return nil, false
		}
		off.Store(true)
		if _, err := m.save(false); !errors.Is(err, objstore.ErrUnreachable) {
			t.Fatal(err)
		}
		st.fail = nil
		off.Store(false)
		newer := start(t, st)
		for range 2 {
			if _, err := m.save(true); !errors.Is(err, ErrFenced) {
				t.Errorf("done %v: %v, want ErrFenced", done, err)
			}
		}
		newer.write("b", "2")
		newer.mustSave(true)
	}
}
