package snapshot

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
)

// index is what a run knows of its last save: how each path was, and where its
// content is.
type index struct {
	Paths map[pathname]*known
	Tombs map[pathname]string // deleted paths, by the segment that says so

	scan uint64 // the scan that is, or was, under way
}

// known is a path as it was last saved or restored. A zero stamp matches no
// file, so that the path is looked at again.
type known struct {
	Record record
	Stamp  stamp
	Chunks []digest // of a large file, in order; nil if they are not known

	seen uint64 // the scan that met the path last
}

// stamp is what changes with a file's content, as far as the file system tells.
type stamp struct {
	Size, MTime, CTime int64
	Ino                uint64
}

func newIndex() *index { return &index{Paths: map[pathname]*known{}, Tombs: map[pathname]string{}} }

// fill takes a state over, which has no stamps yet.
func (x *index) fill(s *state) { x.Paths, x.Tombs = s.live, s.tombs }

// live adds up what content of each segment is in use.
func (x *index) live() map[string]int64 {
	n := map[string]int64{}
	for _, k := range x.Paths {
		use(k.Record.At, n)
	}
	return n
}

// indexFile is an index as it is kept on the node.
type indexFile struct {
	Write string // the head's write that it goes with
	Index *index
}

// saveIndex keeps x for a resume. It is worth nothing after a crash of the node,
// so it is not synced.
func saveIndex(file, write string, x *index) (err error) {
	if file == "" {
		return nil
	}
	tmp := file + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep the index: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = errors.Join(gob.NewEncoder(w).Encode(indexFile{write, x}), w.Flush(), f.Close())
	if err == nil {
		err = os.Rename(tmp, file)
	}
	if err != nil {
		return fmt.Errorf("keep the index: %w", errors.Join(err, os.Remove(tmp)))
	}
	return nil
}

// errOtherIndex: the index is not of the head's last write.
var errOtherIndex = errors.New("the kept index is of another save")

func loadIndex(file, write string) (*index, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	kept := indexFile{Index: newIndex()}
	if err := gob.NewDecoder(bufio.NewReaderSize(f, 1<<20)).Decode(&kept); err != nil {
		return nil, err
	}
	if kept.Write != write {
		return nil, errOtherIndex
	}
	return kept.Index, nil
}
