package driver

import (
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metricsPeriod is how often the figures are written.
const metricsPeriod = 15 * time.Second

// metrics are this node's figures. A plugin has no port of its own, so that they go
// into a file for node_exporter's textfile collector.
type metrics struct {
	registry               *prometheus.Registry
	spooled, sandboxes     prometheus.Gauge
	saves                  *prometheus.CounterVec
	uploaded, fenced, kept prometheus.Counter
	pagedOut               prometheus.Counter
	pause                  prometheus.Histogram
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "openclaw_sandbox_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "openclaw_sandbox_" + name, Help: help})
	}
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		spooled:   gauge("spooled_states", "States that wait on this node for the object store."),
		sandboxes: gauge("sandboxes", "Sandboxes that this driver looks after."),
		saves: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openclaw_sandbox_saves_total",
			Help: "Snapshots that were tried, by result."}, []string{"result"}),
		uploaded: counter("uploaded_bytes_total", "Bytes that snapshots sent to the object store."),
		fenced:   counter("fenced_total", "Runs that another run of the same user had taken over from."),
		kept:     counter("kept_on_node_total", "States that could not be saved at the end of their run, and were kept on the node."),
		pagedOut: counter("paged_out_bytes_total", "Bytes of frozen sandboxes' memory that were pushed out of RAM."),
		pause: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "openclaw_sandbox_pause_seconds",
			Help: "How long a snapshot held a sandbox's processes still.", Buckets: []float64{.002, .005, .01, .02, .03, .05, .1, .25, 1, 5}}),
	}
	for _, result := range []string{"saved", "failed"} {
		m.saves.WithLabelValues(result)
	}
	m.registry.MustRegister(m.spooled, m.sandboxes, m.saves, m.uploaded, m.fenced, m.kept, m.pagedOut, m.pause)
	return m
}

// tried counts a snapshot that ended with err.
func (m *metrics) tried(err error) {
	result := "saved"
	if err != nil {
		result = "failed"
	}
	m.saves.WithLabelValues(result).Inc()
}

// writeMetrics puts the figures into the file that the config names, until the
// plugin ends, and takes the file away then: what nobody renews is no figure.
func (d *Driver) writeMetrics(file string) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := ""
	for {
		select {
		case <-d.ctx.Done():
			os.Remove(file)
			return
		case <-timer.C:
		}
		timer.Reset(metricsPeriod)
		now := ""
		if err := d.putMetrics(file); err != nil {
			now = err.Error()
		}
		if now != said && now != "" {
			d.log.Warn("the metrics file can not be written", "error", now)
		}
		said = now
	}
}

func (d *Driver) putMetrics(file string) error {
	d.metrics.spooled.Set(float64(d.spooled()))
	d.mu.Lock()
	d.metrics.sandboxes.Set(float64(len(d.tasks)))
	d.mu.Unlock()
	if err := prometheus.WriteToTextfile(file, d.metrics.registry); err != nil {
		return fmt.Errorf("metrics_file: %w", err)
	}
	return nil
}
