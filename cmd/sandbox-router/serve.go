package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/chat"
	"openclaw-sandbox/internal/config"
	"openclaw-sandbox/internal/drain"
	"openclaw-sandbox/internal/launch"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/router"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/webhook"
)

// Limits of a client's request head, before anything is known of it.
const (
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	maxHead     = 64 << 10
)

// serve wires the parts and runs until ctx ends, then drains.
func serve(ctx context.Context, c config.Config, logTo io.Writer) error {
	log := slog.New(slog.NewJSONHandler(logTo, nil))
	nc, cc, err := clients(c)
	if err != nil {
		return err
	}
	m := newMetrics()

	watch := catalog.DefaultConfig()
	watch.Service, watch.Shards = c.Service, c.Shards
	cat, err := catalog.New(watch, cc, log)
	if err != nil {
		return err
	}
	// The parts outlive ctx: while requests drain, they still need them.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	starts := launch.DefaultConfig()
	starts.Job, starts.Namespace = c.Job, c.Namespace
	if c.Shards > 1 {
		starts.Service = watch.ServiceOf
	}
	starts.StartTimeout, starts.CapacityWait, starts.RetryAfter = c.StartTimeout, c.CapacityWait, c.RetryAfter
	starts.RetryMin, starts.MaxStarting, starts.MaxQueued, starts.MaxSandboxes, starts.UserStarts = c.RetryMin, c.MaxStarting, c.MaxQueued, c.MaxSandboxes, c.UserStarts
	clients := &watcher{Tracker: activity.NewTracker(), catalog: cat}
	px := proxy.New(proxy.Config{DialTimeout: c.DialTimeout, HeadTimeout: c.HeadTimeout, IdleTimeout: c.IdleTimeout, ForwardedClient: c.ForwardedClient, Scheme: c.Scheme,
		Active: clients.active, Routine: chat.Routine, Socket: clients.socket}, log)
	starts.Reach, starts.Answers, starts.Waits = px.Reach, px.Answers, clients.waits
	launcher := launch.New(life, starts, nc, cc, cat, log, m.wake)
	clients.launcher = launcher
	lazy := newIdlers(c, cc, clients, px, m, log)

	draining := drain.New()
	trail := audit.New(log)
	var table *apitoken.Table
	if c.APITokens != "" {
		follow := apitoken.DefaultConfig()
		follow.Prefix = c.APITokens
		table = apitoken.New(follow, cc, log)
	}
	who, people := methods(life, c, table, log, trail)
	rt := router.New(router.Config{Domain: c.Domain, HoldTimeout: c.HoldTimeout, Audit: trail}, who, cat, starter{launcher}, clients, px, draining.Begun(), log)
	rt.UseAccounts(lazy.books)
	if people != nil {
		rt.UseLogin(people)
	}
	if len(c.Webhooks) > 0 {
		rt.UseWebhooks(webhook.New(c.Webhooks), m.webhook)
	}
	m.watch(cat, draining, launcher, lazy)

	seen := []func(answered){m.count}
	if c.AccessLog {
		seen = append(seen, accessLog(log))
	}
	srv := &http.Server{Handler: draining.Handler(observe(rt, seen...)), ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w; another process may use the port", err)
	}
	metricsSrv := &http.Server{Handler: m.handler(), ReadHeaderTimeout: headTimeout}
	var g errgroup.Group
	g.Go(func() error { return ignore(cat.Run(life), context.Canceled) })
	lazy.run(life, g.Go)
	if table != nil {
		g.Go(func() error { return ignore(table.Run(life), context.Canceled) })
	}
	g.Go(func() error { return ignore(srv.Serve(listener), http.ErrServerClosed) })
	if c.MetricsListen != "" {
		ml, err := net.Listen("tcp", c.MetricsListen)
		if err != nil {
			return errors.Join(fmt.Errorf("metrics_listen: %w; another process may use the port", err), srv.Close())
		}
		g.Go(func() error { return ignore(metricsSrv.Serve(ml), http.ErrServerClosed) })
	}
	log.Info("serving", "version", version, "listen", listener.Addr().String(), "domain", c.Domain)

	<-ctx.Done()
	log.Info("draining", "delay", c.DrainDelay, "timeout", c.DrainTimeout, "websockets", draining.Open())
	err = draining.Run(srv, c.DrainDelay, c.DrainTimeout)
	end()
	launcher.Wait()
	px.Close()
	err = errors.Join(err, metricsSrv.Close(), g.Wait())
	log.Info("ended")
	return err
}

// starter is the launcher as the router wants it.
type starter struct{ *launch.Launcher }

func (s starter) Wake(u sandbox.User, retry bool) router.Flight { return s.Launcher.Wake(u, retry) }

func (s starter) Flight(u sandbox.User) (router.Flight, bool) {
	f, ok := s.Launcher.Flight(u)
	if !ok {
		return nil, false
	}
	return f, true
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// spareConns are idle connections to Consul beside those of the shards.
const spareConns = 8

// clients makes the API clients: the environment first, the config over it.
func clients(c config.Config) (*nomad.Client, *consul.Client, error) {
	nconf := nomad.DefaultConfig()
	if c.NomadAddress != "" {
		nconf.Address = c.NomadAddress
	}
	nc, err := nomad.NewClient(nconf)
	if err != nil {
		return nil, nil, fmt.Errorf("nomad.address: %w", err)
	}
	cconf := consul.DefaultConfig()
	if c.ConsulAddress != "" {
		cconf.Address = c.ConsulAddress
	}
	// Each shard holds one connection; closed and opened anew they would be churn.
	cconf.Transport.MaxIdleConnsPerHost = c.Shards + spareConns
	// The agent is on this node: compressing for it would cost both sides more than it saves.
	cconf.Transport.DisableCompression = true
	cc, err := consul.NewClient(cconf)
	if err != nil {
		return nil, nil, fmt.Errorf("consul.address: %w", err)
	}
	return nc, cc, nil
}
