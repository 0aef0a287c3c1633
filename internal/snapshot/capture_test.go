package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
