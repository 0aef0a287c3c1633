package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
	"openclaw-sandbox/plugin/runtime"
)

// task is one sandbox that runs, or has ended and was not destroyed yet. Its
// goroutine (live) is the only one that saves.
type task struct {
	d        *Driver
	cfg      *drivers.TaskConfig
	user     sandbox.User
	interval time.Duration
	dirs     runtime.Dirs
	uid, gid int

	run     *snapshot.Run // nil until a recovered task could reach the store
	memento snapshot.Memento
	procs   processes

	// still guards freezer and nap, and is held while a save has the process frozen.
	still   sync.Mutex
	freezer freezer
	nap     *nap // frozen by SIGSTOP, until SIGCONT or a stop; nil while awake

	stopping atomic.Bool // somebody asked the process to end
	restless bool        // something that outlived the process changes the state still

	exited chan struct{} // closed when the process has ended
	result *drivers.ExitResult
	done   chan struct{}  // closed when the final save is over too
	noted  sandbox.Reason // the last trouble that an event told
	kept   string         // where the state is kept, if it could not be saved
}

// layout is where a task's folders are. The run's folder is named after the
// allocation, since Nomad's executor names the cgroup after the last two parts
// of the folder that it is given.
func (d *Driver) layout(cfg *drivers.TaskConfig) runtime.Dirs {
	run := filepath.Join(d.runsDir(), cfg.Name, cfg.AllocID)
	return runtime.Dirs{Run: run, State: filepath.Join(run, ".state")}
}

func (t *task) stagingDir() string { return filepath.Join(t.dirs.Run, ".staging") }

func (t *task) options() snapshot.Options {
	o := t.d.settings.snapshot
	o.UID, o.GID = t.uid, t.gid
	o.IndexFile = t.indexFile()
	return o
}

// watch waits for the process in the background; exited is closed when it ends.
func (t *task) watch() error {
	ch, err := t.d.inner().WaitTask(t.d.ctx, t.cfg.ID)
	if err != nil {
		return fmt.Errorf("watch the process: %w", err)
	}
	go func() { // ends with the process or the plugin
		res, ok := <-ch
		if !ok {
			return // the plugin ends; the process goes on
		}
		t.result = t.judge(res)
		close(t.exited)
	}()
	return nil
}

// errUnasked is the exit of a gateway that ended well although nobody asked it to.
var errUnasked = errors.New("the gateway ended by itself; if it ran out of memory, raise the job's memory")

// judge makes an exit that nobody asked for a failure, whatever its code: else
// Nomad takes the work for done, and its restart block does not apply. (Nomad's
// executor reports code 0 when the kernel kills the first process for memory.)
func (t *task) judge(res *drivers.ExitResult) *drivers.ExitResult {
	if res.Successful() && !t.stopping.Load() {
		return &drivers.ExitResult{ExitCode: 1, OOMKilled: res.OOMKilled, Err: errUnasked}
	}
	return res
}

// find looks up the task's processes, and how to stop them for a moment.
func (t *task) find(inner *drivers.TaskHandle) error {
	var err error
	if t.procs.executor, err = executorOf(inner); err != nil {
		return err
	}
	status, err := t.d.inner().InspectTask(t.cfg.ID)
	if err != nil {
		return fmt.Errorf("inspect the process: %w", err)
	}
	if t.procs.pid, err = strconv.Atoi(status.DriverAttributes["pid"]); err != nil {
		return fmt.Errorf("inspect the process: %w", err)
	}
	t.freezer, err = freezerOf(t.procs.pid, t.cfg.AllocID)
	return err
}

// live saves what changed until the process ends, then once more.
func (t *task) live() {
	defer close(t.done)
	o := t.d.settings
	when := due{debounce: min(o.debounce, t.interval), interval: t.interval, quiet: max(o.quiet, t.interval), saved: time.Now()}
	timer := time.NewTimer(when.poll(0))
	defer timer.Stop()
	tidy := time.Now().Add(tidyAfter)
	for {
		select {
		case <-t.d.ctx.Done():
			return
		case <-t.exited:
			t.finish()
			return
		case <-timer.C:
		}
		nap := t.asleep()
		changes, took, err := t.look()
		if err == nil && (when.save(time.Now(), changes) || changes.Paths+changes.Quiet > 0 && nap != nil) {
			if err = t.save(false); err == nil {
				when.did(time.Now())
				t.noted = ""
			}
		}
		switch {
		case err == nil && nap != nil: // all is saved, and nothing can change
			t.doze(nap)
		case errors.Is(err, snapshot.ErrFenced):
			if t.fenced() {
				return
			}
		case err != nil:
			t.d.log.Warn("a snapshot failed, the next one has it all again", "user", t.user, "alloc", t.cfg.AllocID, "error", err)
			if why := failure(err).Reason; t.noted != why { // Nomad keeps a task's last ten events
				t.noted = why
				t.d.note(t.cfg, "Snapshot failed, the next one has it all again: %v", err)
			}
			took = max(took, t.interval/pollShare) // not at once again
		case time.Now().After(tidy):
			tidy = time.Now().Add(snapshot.DefaultTidyEvery)
			t.tidy()
		}
		timer.Reset(when.poll(took))
	}
}

// fenced ends a run whose user was started elsewhere: this one is a zombie. It
// returns false if the process could not be stopped.
func (t *task) fenced() bool {
	t.d.log.Error("a newer run of this user exists, stopping this one", "user", t.user, "alloc", t.cfg.AllocID)
	t.d.say(t.cfg, sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonFenced,
		Message: "Stopped: a newer sandbox of this user has taken over the state"})
	if err := t.stop(0, ""); err != nil {
		t.d.log.Error("stop a fenced task", "alloc", t.cfg.AllocID, "error", err)
		return false // the next look tries again
	}
	<-t.exited
	if err := t.branch(); err != nil {
		t.leave(err)
	}
	// As a success, or Nomad would start it again, and fence the newer run in turn.
	t.result = &drivers.ExitResult{}
	return true
}

// save takes one snapshot.
func (t *task) save(final bool) (err error) {
	defer func() { t.d.metrics.tried(err) }()
	ctx, cancel := context.WithTimeout(t.d.ctx, t.d.settings.timeout)
	defer cancel()
	if err := t.resume(ctx); err != nil {
		return err
	}
	dir, err := os.OpenRoot(t.dirs.State)
	if err != nil {
		return fmt.Errorf("open the state: %w", err)
	}
	defer dir.Close()
	var c *snapshot.Capture
	t.still.Lock()
	z := t.freezer
	if t.nap != nil { // and goes on sleeping
		z = gone{}
	}
	pause, err := frozen(z, func() error {
		if final && !t.restless {
			c, err = t.run.Still(ctx, dir)
		} else {
			c, err = t.run.Capture(ctx, dir, t.stagingDir())
		}
		return err
	})
	t.still.Unlock()
	if err != nil {
		if c != nil {
			err = errors.Join(err, c.Discard())
		}
		return err
	}
	stats, err := t.run.Commit(ctx, c, final)
	if err != nil {
		t.restless = t.restless || errors.Is(err, snapshot.ErrMoved)
		return err
	}
	t.d.metrics.pause.Observe(pause.Seconds())
	t.d.metrics.uploaded.Add(float64(stats.Uploaded))
	if stats.Warning != nil {
		t.d.log.Warn("a snapshot was saved, but not all went well", "user", t.user, "alloc", t.cfg.AllocID, "error", stats.Warning)
	}
	t.d.log.Debug("snapshot", "user", t.user, "epoch", stats.Epoch, "seq", stats.Seq, "changed", stats.Changed,
		"uploaded", stats.Uploaded, "state_bytes", stats.Bytes, "pause", pause, "final", final)
	return nil
}

// tidyAfter is how long a sandbox runs before its history and what nothing names
// are looked at: a start is busy enough.
const tidyAfter = 5 * time.Minute

// tidy thins the user's history, at most once a day.
func (t *task) tidy() {
	ctx, cancel := context.WithTimeout(t.d.ctx, t.d.settings.timeout)
	defer cancel()
	did, err := snapshot.Tidy(ctx, t.d.store, t.user, snapshot.TidyOptions{Retention: t.d.settings.snapshot.Retention, Grace: t.d.settings.grace, Every: snapshot.DefaultTidyEvery})
	if err != nil {
		t.d.log.Warn("tidy the stored state", "user", t.user, "error", err)
		return
	}
	t.d.log.Debug("tidied the stored state", "user", t.user, "versions", did.Versions, "segments", did.Segments, "bytes", did.Bytes)
}

// resume goes on with the run after the plugin was replaced, once the store answers.
func (t *task) resume(ctx context.Context) error {
	if t.run != nil {
		return nil
	}
	run, err := snapshot.Resume(ctx, t.d.store, t.memento, t.options())
	if err != nil {
		return err
	}
	t.run = run
	return nil
}

const (
	// finalTries and finalPause bound how long a stop waits for a store that is away.
	finalTries = 3
	finalPause = 2 * time.Second
)

// finish is the last save, after the process has ended. A state that can not be
// saved stays on the node until it can.
func (t *task) finish() {
	t.still.Lock()
	t.freezer = gone{}
	t.endNap()
	t.still.Unlock()
	var err error
	for try := range finalTries {
		if try > 0 && !pause.For(t.d.ctx, finalPause) {
			return
		}
		if err = t.save(true); err == nil {
			h := t.run.Head()
			t.d.note(t.cfg, "State saved: %s in %d paths, snapshot %d of epoch %d", size(h.Bytes), h.Files, h.Seq, h.Epoch)
			return
		}
		if errors.Is(err, snapshot.ErrTooLarge) {
			break
		}
		if errors.Is(err, snapshot.ErrFenced) {
			if err = t.branch(); err == nil {
				return
			}
			break
		}
	}
	t.leave(err)
}

// remove takes the task's folders off the node, except a state that was not saved.
func (t *task) remove() error {
	if err := t.d.runtime.Cleanup(t.dirs); err != nil {
		return err
	}
	if t.kept != "" {
		if err := os.MkdirAll(filepath.Dir(t.kept), 0o700); err != nil {
			return err
		}
		if err := os.Rename(t.dirs.State, t.kept); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return errors.Join(t.d.spool.Release(t.memento, t.writer()), os.RemoveAll(t.dirs.Run))
}
