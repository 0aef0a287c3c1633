package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/nomad/plugins/drivers"

	"openclaw-sandbox/internal/readiness"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// handleVersion is raised when taskState changes its meaning.
const handleVersion = 1

// StartTask claims and restores the user's state, starts the process, and
// returns when the gateway serves. A failure is an event with its reason, and
// leaves nothing behind: no process, no folder, no change to what is stored.
func (d *Driver) StartTask(cfg *drivers.TaskConfig) (*drivers.TaskHandle, *drivers.DriverNetwork, error) {
	if _, err := d.task(cfg.ID); err == nil {
		return nil, nil, fmt.Errorf("task %s was started already", cfg.ID)
	}
	handle, network, err := d.start(cfg)
	if err != nil {
		f := failure(err)
		d.log.Error("start failed", "alloc", cfg.AllocID, "reason", f.Reason, "error", err)
		d.say(cfg, sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: f.Reason, Message: f.Message})
		return nil, nil, nomadError(f)
	}
	return handle, network, nil
}

func (d *Driver) start(cfg *drivers.TaskConfig) (_ *drivers.TaskHandle, _ *drivers.DriverNetwork, err error) {
	var tc TaskConfig
	if err := cfg.DecodeDriverConfig(&tc); err != nil {
		return nil, nil, configFailure(err)
	}
	p, err := tc.check(cfg, d.runtime, d.settings)
	if err != nil {
		return nil, nil, configFailure(err)
	}
	if cfg.User == "" {
		cfg.User = d.runtime.DefaultUser()
	}
	t := &task{d: d, cfg: cfg, user: p.user, interval: p.interval, dirs: d.layout(cfg), exited: make(chan struct{}), done: make(chan struct{})}
	if t.uid, t.gid, err = owner(cfg.User); err != nil {
		return nil, nil, configFailure(err)
	}
	if t.uid == 0 && d.runtime.Name() == "image" {
		return nil, nil, configFailure(errors.New("user: a sandbox may not run as root"))
	}
	defer func() {
		if err != nil {
			t.giveUp()
		}
	}()
	if err := t.restore(); err != nil {
		return nil, nil, err
	}
	inner, err := t.launch(p)
	if err != nil {
		return nil, nil, err
	}
	handle := drivers.NewTaskHandle(handleVersion)
	handle.Config, handle.State = cfg, drivers.TaskStateRunning
	err = handle.SetDriverState(&taskState{Inner: inner.DriverState, InnerVersion: inner.Version, User: string(p.user), Interval: p.interval})
	if err != nil {
		return nil, nil, fmt.Errorf("encode the handle: %w", err)
	}
	d.keep(t)
	go t.live()
	return handle, p.network, nil
}

// restore brings the user's state into an empty folder of this run.
func (t *task) restore() error {
	// A folder of an earlier try in this allocation holds nothing that is owed to
	// anyone: its run was saved, or failed to start.
	if err := t.remove(); err != nil {
		return fmt.Errorf("clean up an earlier try: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(t.dirs.Run), dirMode(t.d)); err != nil {
		return fmt.Errorf("make the run's folder: %w", err)
	}
	if err := errors.Join(os.Mkdir(t.dirs.Run, dirMode(t.d)), os.Mkdir(t.dirs.State, 0o700)); err != nil {
		return fmt.Errorf("make the run's folder: %w", err)
	}
	t.d.say(t.cfg, sandbox.Progress{Phase: sandbox.PhaseClaiming, Message: "Taking the state of " + string(t.user)})
	if err := t.d.settle(t.user); err != nil {
		return err
	}
	wait, cancelWait := context.WithTimeout(t.d.ctx, t.d.settings.unfinishedWait+t.d.settings.timeout)
	defer cancelWait()
	fresh, err := t.awaitUnfinished(wait)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.d.ctx, t.d.settings.timeout)
	defer cancel()
	if fresh {
		if err := t.welcome(ctx); err != nil {
			return err
		}
		// What the user brought along may have taken its time.
		ctx, cancel = context.WithTimeout(t.d.ctx, t.d.settings.timeout)
		defer cancel()
	}
	t.run, err = snapshot.Claim(ctx, t.d.store, t.user, t.writer(), t.options())
	if err != nil {
		return err
	}
	dir, err := os.OpenRoot(t.dirs.State)
	if err != nil {
		return err
	}
	defer dir.Close()
	rctx, cancelRestore := context.WithTimeout(t.d.ctx, t.d.settings.restore)
	defer cancelRestore()
	if err := t.run.Restore(rctx, dir, t.d.restoreProgress(t.cfg)); err != nil {
		return err
	}
	if t.uid >= 0 {
		if err := os.Chown(t.dirs.State, t.uid, t.gid); err != nil {
			return fmt.Errorf("own the state: %w", err)
		}
	}
	t.memento = t.run.Memento()
	if err := t.d.spool.Reserve(t.memento, t.writer()); err != nil {
		return err
	}
	raw, err := json.Marshal(t.memento)
	if err != nil {
		return err
	}
	return os.WriteFile(t.mementoFile(), raw, 0o600)
}

func (t *task) mementoFile() string { return filepath.Join(t.dirs.Run, ".run.json") }

// dirMode lets the process of a runtime without an image get to its state.
func dirMode(d *Driver) os.FileMode {
	if d.runtime.Name() == "raw_exec" {
		return 0o711
	}
	return 0o700
}

// launch starts the process and waits until the gateway serves.
func (t *task) launch(p plan) (*drivers.TaskHandle, error) {
	if t.d.settings.egress != nil && p.network != nil {
		if err := t.d.settings.egress.IsolatePorts(); err != nil {
			return nil, err
		}
	}
	h := t.run.Head()
	t.cfg.Env["SANDBOX_USER"] = string(p.user)
	t.cfg.Env["SANDBOX_STATE"] = t.d.runtime.StatePath(p.spec, t.dirs)
	in, err := t.d.runtime.Prepare(t.cfg, p.spec, t.dirs)
	if err != nil {
		return nil, err
	}
	message := "Starting the gateway of a new user"
	if h.Seq > 0 {
		message = fmt.Sprintf("Restored %s in %d paths, saved %s; starting the gateway", size(h.Bytes), h.Files, h.Saved.Format("2006-01-02 15:04:05 MST"))
	}
	t.d.say(t.cfg, sandbox.Progress{Phase: sandbox.PhaseStarting, Message: message})
	inner, _, err := t.d.inner().StartTask(in)
	if err != nil {
		return nil, fmt.Errorf("start the process: %w", err)
	}
	if err := t.watch(); err != nil {
		return nil, err
	}
	if err := t.find(inner); err != nil {
		return nil, err
	}
	if err := p.probe.Wait(t.d.ctx, t.exited); err != nil {
		return nil, t.notReady(err)
	}
	t.d.say(t.cfg, sandbox.Progress{Phase: sandbox.PhaseReady, Message: "The gateway serves"})
	return inner, nil
}

// notReady says what became of a gateway that never served.
func (t *task) notReady(err error) error {
	lines := t.awaitLog()
	if lines != "" {
		lines = " Its last log lines: " + lines
	}
	if errors.Is(err, readiness.ErrExited) {
		how := fmt.Sprintf("with code %d", t.result.ExitCode)
		if t.result.OOMKilled {
			how = "because it ran out of memory; raise the job's memory"
		} else if t.result.Signal != 0 {
			how = fmt.Sprintf("by signal %d", t.result.Signal)
		}
		return &sandbox.Failure{Reason: sandbox.ReasonExited, Err: err, Message: fmt.Sprintf("The gateway exited before it was ready, %s.%s", how, lines)}
	}
	f := failure(err)
	f.Message += lines
	return f
}

// giveUp undoes a start that failed.
func (t *task) giveUp() {
	if err := t.destroy(); err != nil {
		t.d.log.Warn("stop a process that did not get ready", "alloc", t.cfg.AllocID, "error", err)
	}
	if t.run != nil {
		ctx, cancel := context.WithTimeout(t.d.ctx, t.d.settings.timeout)
		defer cancel()
		// Without it the head goes on saying "running", which the next claim replaces.
		if err := t.run.Abandon(ctx); err != nil && !errors.Is(err, snapshot.ErrFenced) {
			t.d.log.Warn("give the claim back", "user", t.user, "error", err)
		}
	}
	if err := t.remove(); err != nil {
		t.d.log.Warn("clean up after a failed start", "alloc", t.cfg.AllocID, "error", err)
	}
}
