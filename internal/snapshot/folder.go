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
	path string   // of the folder that is open, "" for the top
	root *os.Root // nil: none is open but the top
	self *os.File // the same folder, for its descriptor; nil until that is wanted
}

// at returns the folder that p is in, which holds until the next call, and p's name in it.
func (f *folder) at(p pathname) (*os.Root, string, error) {
	i := strings.LastIndexByte(string(p), '/')
	parent, name := string(p[:max(i, 0)]), string(p[i+1:])
	if f.path == parent {
		if f.root == nil {
			return f.top, name, nil
		}
		return f.root, name, nil
	}
	f.close()
	if parent == "" {
		return f.top, name, nil
	}
	root, err := f.top.OpenRoot(parent)
	if err != nil {
		return nil, "", err
	}
	f.path, f.root = parent, root
	return root, name, nil
}

// fd is at, with the folder's descriptor.
func (f *folder) fd(p pathname) (int, string, error) {
	dir, name, err := f.at(p)
	if err == nil && f.self == nil {
		f.self, err = dir.Open(".")
	}
	if err != nil {
		return 0, "", err
	}
	return int(f.self.Fd()), name, nil
}

// close closes what is open; nothing is lost with folders.
func (f *folder) close() {
	if f.self != nil {
		f.self.Close()
	}
	if f.root != nil {
		f.root.Close()
	}
	f.path, f.root, f.self = "", nil, nil
}
