package main

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/drain"
	"openclaw-sandbox/internal/front"
	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/launch"
	"openclaw-sandbox/internal/webhook"
)

// metrics have bounded labels only: never a user.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	classes  [6]atomic.Pointer[prometheus.Counter] // of requests, by the first digit
	wakes    *prometheus.HistogramVec
	acts     *prometheus.CounterVec
	webhooks *prometheus.CounterVec
	limited  *prometheus.CounterVec
	reloads  *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sandbox_router_requests_total",
			Help: "Requests, by class of the answer's status; 1xx is an upgrade."}, []string{"class"}),
		wakes: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sandbox_router_wake_seconds",
			Help: "Starts, from the first request, in line or not, to the gateway in the catalog, by outcome: ready; elsewhere, if another router had started it meanwhile; or the reason of a failure.", Buckets: []float64{.5, 1, 2, 4, 6, 8, 10, 15, 20, 30, 60, 120, 240}}, []string{"outcome"}),
		acts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sandbox_router_idle_acts_total",
			Help: "Idle sandboxes that this router froze or stopped."}, []string{"act"}),
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sandbox_router_webhooks_total",
			Help: "Requests to webhooks' paths, by what became of them: only the verified reach a gateway."}, []string{"result"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sandbox_router_limited_total",
			Help: "Requests and connections that were refused, by the setting in limits."}, []string{"limit"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sandbox_router_reloads_total",
			Help: "Reloads of the config, by outcome: done or failed."}, []string{"outcome"}),
	}
	for _, r := range webhook.Results {
		m.webhooks.WithLabelValues(string(r))
	}
	m.registry.MustRegister(m.requests, m.wakes, m.acts, m.webhooks, m.limited, m.reloads, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch adds what is read at each scrape.
func (m *metrics) watch(c *catalog.Catalog, d *drain.Drain, l *launch.Launcher, open *front.Census, i idlers) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("sandbox_router_catalog_users", "Users with a running gateway.", func() float64 { return float64(c.Len()) })
	gauge("sandbox_router_catalog_age_seconds", "Since Consul last answered; a quiet cluster answers every five minutes.", func() float64 { return c.Age().Seconds() })
	gauge("sandbox_router_starts_running", "Starts under way at this router.", func() float64 { n, _ := l.Load(); return float64(n) })
	gauge("sandbox_router_starts_queued", "Starts in line at this router, see max_starting.", func() float64 { _, n := l.Load(); return float64(n) })
	gauge("sandbox_router_events_live", "1 while Nomad's event stream is open; else starts are followed by looking.", func() float64 {
		if l.Following() {
			return 1
		}
		return 0
	})
	gauge("sandbox_router_reaper", "1 at the router that freezes and stops idle sandboxes.", func() float64 {
		if i.reaper.Holds() {
			return 1
		}
		return 0
	})
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sandbox_router_activity_writes_total",
		Help: "Transactions that told other routers what clients do; one every idle.period at most."}, func() float64 { return float64(i.board.Writes()) }))
	gauge("sandbox_router_connections", "Open connections of clients, WebSockets among them.", func() float64 { return float64(open.Open()) })
	gauge("sandbox_router_websockets", "Open upgraded connections.", func() float64 { return float64(d.Open()) })
}

func (m *metrics) wake(outcome string, took time.Duration) {
	m.wakes.WithLabelValues(outcome).Observe(took.Seconds())
}

func (m *metrics) reaped(a idle.Act) { m.acts.WithLabelValues(string(a)).Inc() }

func (m *metrics) webhook(r webhook.Result) { m.webhooks.WithLabelValues(string(r)).Inc() }

// limit counts what was refused for a limit.
func (m *metrics) limit(which string) { m.limited.WithLabelValues(which).Inc() }

func (m *metrics) reload(outcome string) { m.reloads.WithLabelValues(outcome).Inc() }

// complainEvery is how often refused connections are logged: there may be thousands.
const complainEvery = time.Minute

// connectionRefused counts a refused connection, and logs one now and then.
func (m *metrics) connectionRefused(log *slog.Logger) func(bound string, by netip.Addr) {
	now := rate.Sometimes{Interval: complainEvery}
	return func(bound string, by netip.Addr) {
		m.limit(bound)
		now.Do(func() {
			log.Warn("connections are refused", "limit", bound, "from", by, "remedy", "raise it in limits { }; if that address is a proxy's, name it in trusted_proxies")
		})
	}
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// count counts an answer by its class.
func (m *metrics) count(a answered) {
	class := a.status / 100
	if class >= len(m.classes) {
		m.requests.WithLabelValues(strconv.Itoa(class) + "xx").Inc()
		return
	}
	counter := m.classes[class].Load()
	if counter == nil { // a class shows when it has been seen
		made := m.requests.WithLabelValues(strconv.Itoa(class) + "xx")
		counter = &made
		m.classes[class].Store(counter)
	}
	(*counter).Inc()
}
