package driver

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"
)

func TestFingerprint(t *testing.T) {
	for name, c := range map[string]struct {
		why             error
		spooled, most   int64
		want            drivers.HealthState
		says            string
		keepsAttributes bool
	}{
		"well":                  {nil, 0, 100, drivers.HealthStateHealthy, "Healthy", true},
		"some wait":             {nil, 3, 100, drivers.HealthStateHealthy, "3 states wait", true},
		"too many wait":         {nil, 100, 100, drivers.HealthStateUnhealthy, "max_spooled is 100", true},
		"no limit":              {nil, 1000, 0, drivers.HealthStateHealthy, "1000 states wait", true},
		"the node lacks a tool": {errors.New("no nft"), 0, 100, drivers.HealthStateUnhealthy, "no nft", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := fingerprint("image", c.why, c.spooled, c.most)
			if f.Health != c.want || !strings.Contains(f.HealthDescription, c.says) || (f.Attributes["driver.sandbox.spooled"] != nil) != c.keepsAttributes {
				t.Errorf("got %s, %q, %d attributes", f.Health, f.HealthDescription, len(f.Attributes))
			}
		})
	}
}
