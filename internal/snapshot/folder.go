package snapshot

import (
	"os"
	"strings"
)

// folder keeps the folder that was used last open. Paths mostly come in order, so
// the next one is often in the same folder, and its name is looked up there, not
// its whole path from the top. Not for concurrent use.
type folder struct {
	top  *os.Root
	path string
	root *os.Root // nil: none is open
}

// at returns the folder that p is in, which holds until the next call, and p's name in it.
func (f *folder) at(p pathname) (*os.Root, string, error) {
	i := strings.LastIndexByte(string(p), '/')
	if i < 0 {
		return f.top, string(p), nil
	}
	parent, name := string(p[:i]), string(p[i+1:])
	if f.root != nil && f.path == parent {
		return f.root, name, nil
	}
	f.close()
	root, err := f.top.OpenRoot(parent)
	if err != nil {
		return nil, "", err
	}
	f.path, f.root = parent, root
	return root, name, nil
}

func (f *folder) close() {
	if f.root != nil {
		f.root.Close() // of a folder: nothing is lost
		f.root = nil
	}
}
