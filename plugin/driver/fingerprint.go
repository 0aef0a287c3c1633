package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	pstructs "github.com/hashicorp/nomad/plugins/shared/structs"
)

// fingerprintPeriod is how often the node's health is looked at.
const fingerprintPeriod = 30 * time.Second

// Fingerprint reports the driver's attributes and health until ctx ends.
func (d *Driver) Fingerprint(ctx context.Context) (<-chan *drivers.Fingerprint, error) {
	ch := make(chan *drivers.Fingerprint)
	go func() { // ends with ctx or the plugin
		defer close(ch)
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-d.ctx.Done():
				return
			case <-timer.C:
			}
			timer.Reset(fingerprintPeriod)
			if d.why != nil {
				d.why = d.prepareNode() // it may have been mended
			}
			select {
			case ch <- fingerprint(d.runtime.Name(), d.why, d.spooled(), d.settings.maxSpooled):
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// spooled is how many states wait on this node for the object store.
func (d *Driver) spooled() int64 {
	entries, err := d.spool.List()
	if err != nil {
		d.log.Error("a state that was not saved can not be read", "error", err)
	}
	return int64(len(entries))
}

// fingerprint reports the node. A node on which too many states wait takes no further
// sandbox, as its disk would fill up with what it can not save.
func fingerprint(runtimeName string, why error, spooled, maxSpooled int64) *drivers.Fingerprint {
	if why != nil {
		return &drivers.Fingerprint{Health: drivers.HealthStateUnhealthy, HealthDescription: why.Error()}
	}
	health, description := drivers.HealthStateHealthy, drivers.DriverHealthy
	if runtimeName == "raw_exec" {
		description = "Healthy; runtime raw_exec isolates nothing"
	}
	if spooled > 0 {
		description += fmt.Sprintf("; %d states wait for the object store", spooled)
	}
	if maxSpooled > 0 && spooled >= maxSpooled {
		health = drivers.HealthStateUnhealthy
		description = fmt.Sprintf("%d states wait for the object store, and snapshot.max_spooled is %d: no further sandbox starts here until the store takes them", spooled, maxSpooled)
	}
	return &drivers.Fingerprint{
		Health: health, HealthDescription: description,
		Attributes: map[string]*pstructs.Attribute{
			"driver.sandbox":         pstructs.NewBoolAttribute(true),
			"driver.sandbox.runtime": pstructs.NewStringAttribute(runtimeName),
			"driver.sandbox.spooled": pstructs.NewIntAttribute(spooled, ""),
			"driver.sandbox.version": pstructs.NewStringAttribute(pluginVersion),
		},
	}
}
