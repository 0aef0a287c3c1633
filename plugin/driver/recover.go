package driver

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"openclaw-sandbox/internal/sandbox"
)

// taskState is what Nomad keeps for us while the plugin is away.
type taskState struct {
	Inner        []byte // the inner driver's own state
	InnerVersion int
	User         string
	Interval     time.Duration
}

// RecoverTask reattaches to a sandbox after a restart of the agent or the plugin:
// the process was never disturbed, and its run goes on in the same epoch. It
// needs no object store; the next save looks whether the run is still the newest.
func (d *Driver) RecoverTask(handle *drivers.TaskHandle) error {
	if handle == nil || handle.Config == nil {
		return fmt.Errorf("recover: no handle")
	}
	cfg := handle.Config
	if _, err := d.task(cfg.ID); err == nil {
		return nil
	}
	if handle.Version != handleVersion {
		return fmt.Errorf("recover %s: its handle has version %d, this plugin knows %d", cfg.ID, handle.Version, handleVersion)
	}
	var s taskState
	if err := handle.GetDriverState(&s); err != nil {
		return fmt.Errorf("recover %s: %w", cfg.ID, err)
	}
	t := &task{d: d, cfg: cfg, interval: s.Interval, dirs: d.layout(cfg), exited: make(chan struct{}), done: make(chan struct{})}
	var err error
	if t.user, err = sandbox.ParseUser(s.User); err != nil {
		return fmt.Errorf("recover %s: %w", cfg.ID, err)
	}
	if t.uid, t.gid, err = owner(cfg.User); err != nil {
		return fmt.Errorf("recover %s: %w", cfg.ID, err)
	}
	raw, err := os.ReadFile(t.mementoFile())
	if err == nil {
		err = json.Unmarshal(raw, &t.memento)
	}
	if err != nil {
		return fmt.Errorf("recover %s: %w", cfg.ID, err)
	}
	if err := d.spool.Reserve(t.memento, t.writer()); err != nil { // Open has tidied it away
		d.log.Warn("reserve a place in the spool", "alloc", cfg.AllocID, "error", err)
	}
	in := drivers.NewTaskHandle(s.InnerVersion)
	in.Config, in.State, in.DriverState = d.runtime.Inside(cfg, t.dirs), handle.State, s.Inner
	if err := d.inner().RecoverTask(in); err != nil {
		return t.salvage(fmt.Errorf("recover %s: %w", cfg.ID, err))
	}
	if err := t.watch(); err != nil {
		return fmt.Errorf("recover %s: %w", cfg.ID, err)
	}
	if err := t.find(in); err != nil {
		t.freezer = gone{} // the process ended meanwhile
	}
	if err := t.recoverSleep(); err != nil {
		d.log.Warn("freeze or thaw a recovered task", "alloc", cfg.AllocID, "error", err)
	}
	os.RemoveAll(t.stagingDir())
	d.keep(t)
	go t.live()
	return nil
}

// salvage saves the state of a run whose process is gone, before Nomad starts
// another in its place. It returns the reason that brought us here.
func (t *task) salvage(why error) error {
	os.RemoveAll(t.stagingDir())
	t.finish()
	if err := t.remove(); err != nil {
		t.d.log.Warn("clean up a lost run", "alloc", t.cfg.AllocID, "error", err)
	}
	return why
}
