package snapshot

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/objstore"
)

// A folder whose name is not UTF-8.
func TestFolderNotUTF8(t *testing.T) {
	m := start(t, dirStore(t))
	m.write("bad-\xff/f", "1")
	m.write("other", "1")
	if _, err := m.save(true); err != nil {
		t.Errorf("one odd folder name stops every save: %v", err)
	}
}

// Things that come and go while an unfrozen tree is captured.
func TestChangingTree(t *testing.T) {
	m := start(t, dirStore(t))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			d := filepath.Join(m.path, fmt.Sprintf("d%d", i%5))
			switch i % 4 {
			case 0:
				os.RemoveAll(d)
				os.MkdirAll(filepath.Join(d, "x"), 0o755)
				os.WriteFile(filepath.Join(d, "x", "f"), make([]byte, i%5000), 0o644)
			case 1:
				os.RemoveAll(d)
				os.WriteFile(d, make([]byte, i%9000), 0o644)
			case 2:
				os.RemoveAll(d)
				os.Symlink("/etc", d)
			case 3:
				os.WriteFile(filepath.Join(m.path, "grow"), make([]byte, i%20000), 0o644)
			}
		}
	}()
	kinds := map[string]int{}
	for range 400 {
		if _, err := m.save(false); err != nil {
			s := err.Error()
			kinds[s[strings.LastIndex(s, ": ")+2:]]++
		}
	}
	close(stop)
	<-done
	if len(kinds) > 0 {
		t.Errorf("captures that failed of 400, by cause: %v", kinds)
	}
	m.mustSave(true)
	same(t, start(t, m.st).path, m.path)
}

// A look tells what is new, what is only a sign of life, and what is gone.
func TestLook(t *testing.T) {
	m := start(t, dirStore(t))
	m.run.quiet = newExcluder([]string{"beat"})
	look := func() Changes {
		t.Helper()
		c, err := m.run.Look(t.Context(), m.root)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	m.write("a", "1")
	m.write("beat", "1")
	if c := look(); c.Paths != 1 || c.Quiet != 1 || time.Since(c.Newest) > time.Minute {
		t.Errorf("two new files: %+v", c)
	}
	time.Sleep(2 * racyWindow) // so that the files' time stamps prove something
	m.mustSave(false)
	if c := look(); c != (Changes{}) {
		t.Errorf("after a save: %+v", c)
	}
	m.write("beat", "22")
	if c := look(); c != (Changes{Quiet: 1}) {
		t.Errorf("a sign of life: %+v", c)
	}
	os.Remove(filepath.Join(m.path, "a"))
	if c := look(); c.Paths != 1 || c.Quiet != 1 {
		t.Errorf("a deletion: %+v", c)
	}
	m.mustSave(false)
	m.run.opts.MaxFiles = 0
	m.write("b", "1")
	if c := look(); c.Paths == 0 {
		t.Errorf("past a limit: %+v", c)
	}
}

// A run that has ended is saved from where it lies: nothing is copied, and a file
// that changes after all is an error, not a torn copy.
func TestStill(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	remove := func(name string) {
		if err := os.RemoveAll(filepath.Join(m.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(m.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	m.write("small", "one")
	m.write("large", strings.Repeat("0123456789abcdef", 40<<10))
	for name, change := range map[string]func(){
		"small file":   func() { m.write("small", "two") },
		"large file":   func() { m.write("large", strings.Repeat("fedcba9876543210", 40<<10)) },
		"file is gone": func() { remove("small") },
		"link instead": func() { remove("large"); link("/etc/passwd", "large") },
	} {
		c, err := m.run.Still(t.Context(), m.root)
		if err != nil {
			t.Fatal(err)
		}
		change()
		if _, err := m.run.Commit(t.Context(), c, true); !errors.Is(err, ErrMoved) {
			t.Errorf("%s changed meanwhile: %v, want ErrMoved", name, err)
		}
		remove("small")
		remove("large")
		m.write("small", "one")
		m.write("large", strings.Repeat("0123456789abcdef", 40<<10))
	}
	c, err := m.run.Still(t.Context(), m.root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.run.Commit(t.Context(), c, true); err != nil {
		t.Fatal(err)
	}
	same(t, start(t, st).path, m.path)
}

// A save of more than one part is sent as it is packed, and an upload that fails
// in the middle fails the save and commits nothing.
func TestStreamedSegment(t *testing.T) {
	st := &countingStore{Store: dirStore(t)}
	m := start(t, st)
	noise := make([]byte, 3*streamFrom)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	m.write("noise", string(noise))
	lost := fmt.Errorf("lost: %w", objstore.ErrUnreachable)
	st.fail = func(key string) (error, bool) {
		if strings.Contains(key, "/seg/") {
			return lost, false
		}
		return nil, false
	}
	if _, err := m.save(false); !errors.Is(err, objstore.ErrUnreachable) {
		t.Fatalf("err = %v, want ErrUnreachable", err)
	}
	st.fail = nil
	m.mustSave(true)
	same(t, start(t, st).path, m.path)
}
