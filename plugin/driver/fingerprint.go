package driver

import (
	"context"
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
			case ch <- fingerprint(d.runtime.Name(), d.why):
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

func fingerprint(runtimeName string, why error) *drivers.Fingerprint {
	if why != nil {
		return &drivers.Fingerprint{Health: drivers.HealthStateUnhealthy, HealthDescription: why.Error()}
	}
	description := drivers.DriverHealthy
	if runtimeName == "raw_exec" {
		description = "Healthy; runtime raw_exec isolates nothing"
	}
	return &drivers.Fingerprint{
		Health: drivers.HealthStateHealthy, HealthDescription: description,
		Attributes: map[string]*pstructs.Attribute{
			"driver.sandbox":         pstructs.NewBoolAttribute(true),
			"driver.sandbox.runtime": pstructs.NewStringAttribute(runtimeName),
			"driver.sandbox.version": pstructs.NewStringAttribute(pluginVersion),
		},
	}
}
