package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"openclaw-sandbox/internal/objstore"
)

// countingStore counts writes and can fail or answer unclearly.
type countingStore struct {
	objstore.Store
	puts int
	// fail is asked before each put; an error is returned instead of the answer.
	// done says whether the put happens all the same.
	fail func(key string) (err error, done bool)
}

func (c *countingStore) Put(ctx context.Context, key string, body io.ReadSeeker, cond objstore.Condition) (string, error) {
	c.puts++
	var etag string
	err := c.try(key, func() (err error) { etag, err = c.Store.Put(ctx, key, body, cond); return err })
	return etag, err
}

func (c *countingStore) Upload(ctx context.Context, key string, body io.Reader) error {
	c.puts++
	return c.try(key, func() error { return c.Store.Upload(ctx, key, body) })
}

func (c *countingStore) try(key string, put func() error) error {
	if c.fail == nil {
		return put()
	}
	err, done := c.fail(key)
	if err == nil || done {
		if perr := put(); err == nil {
			return perr
		}
	}
	return err
}

// The store does the work and the answer gets lost.
func TestUnclearAnswers(t *testing.T) {
	lost := fmt.Errorf("lost: %w", objstore.ErrUnreachable)
	for name, key := range map[string]string{"head": headKey(user), "segment": "/seg/"} {
		t.Run(name, func(t *testing.T) {
			st := &countingStore{Store: dirStore(t)}
			m := start(t, st)
			m.write("a", "1")
			once := false
			st.fail = func(k string) (error, bool) {
				if strings.Contains(k, key) && !once {
					once = true
					return lost, true
				}
				return nil, false
			}
			_, err := m.save(false)
			if name == "segment" {
				if !errors.Is(err, objstore.ErrUnreachable) {
					t.Fatalf("err = %v, want ErrUnreachable", err)
				}
				m.mustSave(false) // the next save has it all again
			} else if err != nil {
				t.Fatalf("the write happened, but: %v", err)
			}
			m.write("b", "2")
			m.mustSave(true)
			same(t, start(t, st).path, m.path)
		})
	}
	t.Run("a refused second try of our own write", func(t *testing.T) {
		st := &countingStore{Store: dirStore(t)}
		m := start(t, st)
		m.write("a", "1")
		st.fail = func(k string) (error, bool) {
			if !strings.Contains(k, headKey(user)) {
				return nil, false
			}
			return fmt.Errorf("retried: %w", objstore.ErrPrecondition), true
		}
		if _, err := m.save(false); err != nil {
			t.Errorf("our own write was there, but: %v", err)
		}
	})
	t.Run("away for good", func(t *testing.T) {
		st := &countingStore{Store: dirStore(t)}
		m := start(t, st)
		m.write("a", "1")
		st.fail = func(string) (error, bool) { return lost, false }
		if _, err := m.save(false); !errors.Is(err, objstore.ErrUnreachable) {
			t.Errorf("err = %v, want ErrUnreachable", err)
		}
		st.fail = nil
		m.mustSave(true)
		same(t, start(t, st).path, m.path)
	})
}
