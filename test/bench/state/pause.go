package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"openclaw-sandbox/internal/snapshot"
)

const pauseRounds = 50

// pauses is how long captures held, and what the saves sent.
type pauses struct {
	idle, busy []time.Duration // in all; busy with a core taken by others
	saves      int
	sent       traffic
	first      int64 // bytes of the first save: the whole state
	state      int64
}

// gateway makes about 40 MB as a gateway leaves them: databases, transcripts that
// grow, many small files.
func gateway(ctx context.Context, dir string) (*dataset, error) {
	d := &dataset{name: "gateway", dir: dir, gen: newGen(4)}
	for i := range 20 {
		if err := d.write(fmt.Sprintf("openclaw/agents/main/sessions/s%02d.jsonl", i), 400*kilo); err != nil {
			return nil, err
		}
	}
	for i := range 700 {
		if err := d.write(fmt.Sprintf("workspace/p%02d/f%03d.md", i%30, i), d.gen.size(kilo, 60*kilo)); err != nil {
			return nil, err
		}
	}
	if err := sqlite(ctx, d.db(0), "make", d.gen.text(12*mega)); err != nil {
		return nil, err
	}
	d.bytes += 12 * mega
	return d, sqlite(ctx, d.db(1), "make", d.gen.text(8*mega))
}

// work is what happens between two saves: files written anew, transcripts that
// grow, pages of a database.
func (d *dataset) work(ctx context.Context) error {
	const sessions = 20 // the first of d.files
	for _, i := range d.gen.Perm(sessions)[:5] {
		f, err := os.OpenFile(filepath.Join(d.dir, d.files[i]), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(d.gen.text(6 * kilo))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	for _, i := range d.gen.Perm(len(d.files) - sessions)[:30] {
		if err := os.WriteFile(filepath.Join(d.dir, d.files[sessions+i]), d.gen.text(d.gen.size(kilo, 60*kilo)), 0o644); err != nil {
			return err
		}
	}
	return sqlite(ctx, d.db(0), "change", d.gen.text(20*kilo))
}

// pauses measures what stands still while a sandbox is frozen: Capture. Freezing
// itself is the kernel's.
func (b *bench) pauses(ctx context.Context) error {
	if b.contenders[nameOurs] == nil {
		return nil
	}
	d, err := gateway(ctx, b.path("gateway"))
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	st := &switched{}
	if err := st.to(ctx, b.counter.URL); err != nil {
		return err
	}
	run, err := snapshot.Claim(ctx, st, "bench-gateway", snapshot.Writer{Alloc: "bench", Node: "bench"}, snapshot.DefaultOptions())
	if err != nil {
		return err
	}
	if err := emptied(b.path("none")); err != nil {
		return err
	}
	if err := restoreInto(ctx, run, b.path("none")); err != nil {
		return err
	}
	hold := func() (time.Duration, error) {
		begin := time.Now()
		c, err := run.Capture(ctx, root, b.path("staging"))
		took := time.Since(begin)
		if err != nil {
			return 0, err
		}
		stats, err := run.Commit(ctx, c, false)
		b.pause.state = stats.Bytes
		return took, err
	}
	b.counter.take()
	if _, err := hold(); err != nil {
		return err
	}
	b.pause.first = b.counter.take().up
	measure := func() (held []time.Duration, err error) {
		for range pauseRounds {
			if err := d.work(ctx); err != nil {
				return nil, err
			}
			took, err := hold()
			if err != nil {
				return nil, err
			}
			held = append(held, took)
			b.pause.saves++
		}
		return held, nil
	}
	if b.pause.idle, err = measure(); err != nil {
		return err
	}
	if b.pause.busy, err = beside(ctx, measure); err != nil {
		return err
	}
	b.pause.sent = b.counter.take()
	progress("pauses measured")
	return nil
}

// beside calls f while another process keeps a core busy.
func beside(ctx context.Context, f func() ([]time.Duration, error)) ([]time.Duration, error) {
	load := exec.CommandContext(ctx, "bash", "-c", "while :; do :; done")
	if err := load.Start(); err != nil {
		return nil, err
	}
	held, err := f()
	return held, errors.Join(err, load.Process.Kill(), ignoreKilled(load.Wait()))
}

func ignoreKilled(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

// packed is how many bytes zstd makes of content.
func packed(content []byte) int64 {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // only options that contradict each other
	}
	defer w.Close()
	return int64(len(w.EncodeAll(content, nil)))
}
