package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/config"
	"openclaw-sandbox/internal/drain"
	"openclaw-sandbox/internal/front"
	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/launch"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/test/bench/table"
)

// docs/metrics.md lists every metric of the router, as the code has it. WRITE_DOCS=1
// writes the list anew.
func TestMetricsReference(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	cc, err := consul.NewClient(consul.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nomad.NewClient(nomad.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	cat, err := catalog.New(catalog.DefaultConfig(), cc, log)
	if err != nil {
		t.Fatal(err)
	}
	launcher := launch.New(t.Context(), launch.DefaultConfig(), nc, cc, cat, log, nil)
	t.Cleanup(launcher.Wait)
	m := newMetrics()
	w := &watcher{Tracker: activity.NewTracker(), catalog: cat, launcher: launcher}
	m.watch(cat, drain.New(), launcher, front.NewCensus(front.Bounds{}, nil), newIdlers(config.NewConfig(), cc, w, proxy.New(proxy.Config{}, log), m, log))
	m.reaped(idle.Stop)
	m.requests.WithLabelValues("2xx") // a family without a value is not gathered
	m.wakes.WithLabelValues("ready")
	m.limit("max_body")
	m.reload("done")
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	list := "| metric | type | labels | |\n|---|---|---|---|\n"
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "sandbox_router_") {
			continue // the Go runtime's and the process's own
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		list += fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	const file = "../../docs/metrics.md"
	if os.Getenv("WRITE_DOCS") != "" {
		if err := table.Replace(file, "metrics", list); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "<!-- metrics -->\n"+list+"<!-- /metrics -->") {
		t.Errorf("docs/metrics.md is not as the code: run WRITE_DOCS=1 go test -run TestMetricsReference ./cmd/sandbox-router; want\n%s", list)
	}
}
