package driver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
)

// stopSignal asks the gateway to drain and end; Nomad's default, SIGINT, is for
// terminals.
const stopSignal = "SIGTERM"

// StopTask asks the process to end, and kills it after timeout. The final save
// follows; WaitTask reports the exit after it.
func (d *Driver) StopTask(id string, timeout time.Duration, signal string) error {
	t, err := d.task(id)
	if err != nil {
		return err
	}
	if signal == "" {
		signal = stopSignal
	}
	if err := t.stop(timeout, signal); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// stop ends the process by the inner driver, which kills it after timeout.
func (t *task) stop(timeout time.Duration, signal string) error {
	t.stopping.Store(true)
	if err := t.wake(); err != nil { // a frozen process would take no signal
		t.d.log.Warn("thaw before a stop", "alloc", t.cfg.AllocID, "error", err)
	}
	return t.insist(timeout+stopMargin, func() error { return t.d.inner().StopTask(t.cfg.ID, timeout, signal) })
}

// destroy makes the inner driver forget the task, and ends the process if it runs.
func (t *task) destroy() error {
	err := t.insist(stopMargin, func() error { return t.d.inner().DestroyTask(t.cfg.ID, true) })
	if errors.Is(err, drivers.ErrTaskNotFound) {
		return nil
	}
	return err
}

// WaitTask reports the exit once the final save is over.
func (d *Driver) WaitTask(ctx context.Context, id string) (<-chan *drivers.ExitResult, error) {
	t, err := d.task(id)
	if err != nil {
		return nil, err
	}
	ch := make(chan *drivers.ExitResult, 1)
	go func() { // ends with the task, ctx or the plugin
		defer close(ch)
		select {
		case <-t.done:
			if t.result != nil {
				ch <- t.result.Copy()
			}
		case <-ctx.Done():
		case <-d.ctx.Done():
		}
	}()
	return ch, nil
}

// DestroyTask removes what is left of an ended task; force ends a running one.
func (d *Driver) DestroyTask(id string, force bool) error {
	t, err := d.task(id)
	if err != nil {
		return err
	}
	select {
	case <-t.done:
	default:
		if !force {
			return errors.New("the task is still running")
		}
		if err := t.stop(0, ""); err != nil && !errors.Is(err, drivers.ErrTaskNotFound) {
			return fmt.Errorf("destroy: %w", err)
		}
		<-t.done // bounded: the process is gone, and the final save has its timeout
	}
	if err := t.destroy(); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	if err := t.remove(); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	d.forget(id)
	return nil
}

// InspectTask is the inner driver's, with the state of the snapshots.
func (d *Driver) InspectTask(id string) (*drivers.TaskStatus, error) {
	t, err := d.task(id)
	if err != nil {
		return nil, err
	}
	status, err := d.inner().InspectTask(id)
	if err != nil {
		return nil, err
	}
	if status.DriverAttributes == nil {
		status.DriverAttributes = map[string]string{}
	}
	status.DriverAttributes["sandbox.user"] = string(t.user)
	status.DriverAttributes["sandbox.epoch"] = strconv.FormatUint(t.memento.Epoch, 10)
	return status, nil
}
