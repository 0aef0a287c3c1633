package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"openclaw-sandbox/internal/devcluster"
)

// dataset is one of the states that are measured. The same program makes the same
// bytes everywhere.
type dataset struct {
	name, text string
	dir        string
	gen        *gen
	files      []string // relative, for change to choose from; without databases
	bytes      int64
}

// gen makes content from a seed.
type gen struct {
	*rand.Rand
	words [][]byte
	noise *rand.ChaCha8
}

func newGen(seed uint64) *gen {
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 1)), noise: rand.NewChaCha8([32]byte{byte(seed)})}
	for range 6000 {
		w := make([]byte, 2+g.IntN(9), 12)
		for i := range w {
			w[i] = "etaoinshrdlucmfwypvbgkjqxz"[min(g.IntN(26), g.IntN(26))]
		}
		g.words = append(g.words, append(w, ' '))
	}
	return g
}

// text is words, the common ones often: zstd makes about a third of it, as of
// notes, transcripts and JSON.
func (g *gen) text(n int) []byte {
	out := make([]byte, 0, n+16)
	for len(out) < n {
		// Zipf's law: the density of a rank is its inverse.
		out = append(out, g.words[int(math.Pow(float64(len(g.words)), g.Float64()))-1]...)
		if g.IntN(12) == 0 {
			out[len(out)-1] = '\n'
		}
	}
	return out[:n]
}

// content is text, or every eighth time something that does not compress, as
// pictures and archives.
func (g *gen) content(n int) []byte {
	if g.IntN(8) > 0 {
		return g.text(n)
	}
	out := make([]byte, n)
	g.noise.Read(out) // never fails
	return out
}

// size is between least and most, small ones as likely as ten times as large ones.
func (g *gen) size(least, most float64) int { return int(least * math.Pow(most/least, g.Float64())) }

// write makes a file of the data set.
func (d *dataset) write(name string, n int) error {
	file := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	d.files = append(d.files, name)
	d.bytes += int64(n)
	return os.WriteFile(file, d.gen.content(n), 0o644)
}

const (
	kilo      = 1000
	mega      = 1000 * kilo
	databases = 2
	dbSize    = 20 * mega
)

// makeDatasets makes A, B and C in a folder.
func makeDatasets(ctx context.Context, dir string) ([]*dataset, error) {
	a := &dataset{name: "A", text: "10,000 files of 1 to 90 KB in 400 folders", gen: newGen(1)}
	b := &dataset{name: "B", text: "300 files, two of them SQLite databases of 20 MB", gen: newGen(2)}
	c := &dataset{name: "C", text: "100 files of 1 to 9 MB", gen: newGen(3)}
	all := []*dataset{a, b, c}
	for _, d := range all {
		d.dir = filepath.Join(dir, d.name)
	}
	for i := range 10000 {
		if err := a.write(fmt.Sprintf("d%02d/e%d/f%04d", i%100, i/100%4, i), a.gen.size(kilo, 90*kilo)); err != nil {
			return nil, err
		}
	}
	for i := range 300 - databases {
		if err := b.write(fmt.Sprintf("d%d/f%03d", i%10, i), b.gen.size(kilo, 175*kilo)); err != nil {
			return nil, err
		}
	}
	for i := range databases {
		if err := sqlite(ctx, b.db(i), "make", b.gen.text(dbSize)); err != nil {
			return nil, err
		}
		b.bytes += dbSize
	}
	for i := range 100 {
		if err := c.write(fmt.Sprintf("d%d/f%02d", i%10, i), mega+c.gen.IntN(8*mega)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (d *dataset) db(i int) string { return filepath.Join(d.dir, fmt.Sprintf("db%d.sqlite", i)) }

//go:embed sqlite.mjs
var sqliteScript string

// sqlite has Node, which the gateway runs on too, make or change a database.
func sqlite(ctx context.Context, file, verb string, text []byte) error {
	node, err := devcluster.Tool("node")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, node, "--no-warnings", "--input-type=module", "-e", sqliteScript, "--", file, verb)
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sqlite %s %s: %w: %s", verb, file, err, out)
	}
	return nil
}

// changedFiles and changedPages are what happens to A and to B between saves.
const (
	changedFiles = 100
	changedPages = 50
)

// change changes what a save then sends, every time something else: 1 % of the
// files, or rows on 50 pages of one database. It returns the new content of files.
func (d *dataset) change(ctx context.Context) ([]byte, error) {
	if d.name == "B" {
		return nil, sqlite(ctx, d.db(0), "change", d.gen.text(changedPages*1000))
	}
	var all []byte
	for _, i := range d.gen.Perm(len(d.files))[:changedFiles] {
		file := filepath.Join(d.dir, d.files[i])
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		content := d.gen.content(int(info.Size()))
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return nil, err
		}
		all = append(all, content...)
	}
	return all, nil
}

// same compares two trees' files.
func same(a, b string) error {
	names := func(dir string) (out []string, err error) {
		err = fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				out = append(out, p)
			}
			return err
		})
		slices.Sort(out)
		return out, err
	}
	x, err := names(a)
	y, yerr := names(b)
	if err := errors.Join(err, yerr); err != nil {
		return err
	}
	if !slices.Equal(x, y) {
		return fmt.Errorf("%s has %d files, %s other %d", a, len(x), b, len(y))
	}
	for _, name := range x {
		one, err := os.ReadFile(filepath.Join(a, name))
		two, terr := os.ReadFile(filepath.Join(b, name))
		if err := errors.Join(err, terr); err != nil {
			return err
		}
		if !bytes.Equal(one, two) {
			return fmt.Errorf("%s differs in %s and %s", name, a, b)
		}
	}
	return nil
}
