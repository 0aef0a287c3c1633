package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/ceiling"
	"openclaw-sandbox/internal/chat"
	"openclaw-sandbox/internal/config"
	"openclaw-sandbox/internal/drain"
	"openclaw-sandbox/internal/front"
	"openclaw-sandbox/internal/launch"
	"openclaw-sandbox/internal/proxy"
)

// server is the running router. What a reload changes is behind atomic pointers.
type server struct {
	parts
	config  atomic.Pointer[config.Config]
	handler latest
	census  *front.Census
	front   *front.Front // nil without TLS
}

// use serves by c from now on.
func (s *server) use(c config.Config) {
	s.config.Store(&c)
	s.handler.set(s.parts.handler(c))
	s.census.Set(bounds(c))
	s.launcher.Set(starting(c))
	s.reaper.Set(reaping(c))
}

// starting is what c says of starts, as far as it may change.
func starting(c config.Config) launch.Terms {
	return launch.Terms{StartTimeout: c.StartTimeout, CapacityWait: c.CapacityWait, RetryMin: c.RetryMin, RetryAfter: c.RetryAfter,
		MaxStarting: c.MaxStarting, MaxQueued: c.MaxQueued, MaxSandboxes: c.MaxSandboxes, UserStarts: c.UserStarts}
}

func bounds(c config.Config) front.Bounds {
	return front.Bounds{Total: c.Limits.Connections, ByAddress: c.Limits.ConnectionsByAddress, Exempt: c.TrustedProxies}
}

// serve wires the parts and runs until ctx ends, then drains. At each of the signals
// it takes over what load returns.
func serve(ctx context.Context, c config.Config, signals <-chan os.Signal, load func() (config.Config, error), logTo io.Writer) error {
	log := slog.New(slog.NewJSONHandler(logTo, nil))
	ceiling.Raise(log, descriptors(c))
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
	starts.Terms = starting(c)
	clients := &watcher{Tracker: activity.NewTracker(), catalog: cat}
	px := proxy.New(proxy.Config{DialTimeout: c.DialTimeout, HeadTimeout: c.HeadTimeout, IdleTimeout: c.IdleTimeout, ForwardedClient: c.ForwardedClient, Scheme: c.Scheme,
		Active: clients.active, Routine: chat.Routine, Socket: clients.socket}, log)
	starts.Reach, starts.Answers, starts.Waits = px.Reach, px.Answers, clients.waits
	launcher := launch.New(life, starts, nc, cc, cat, log, m.wake)
	clients.launcher = launcher
	lazy := newIdlers(c, cc, clients, px, m, log)

	draining := drain.New()
	s := &server{parts: parts{life: life, catalog: cat, launcher: launcher, clients: clients, books: lazy.books, reaper: lazy.reaper, proxy: px, draining: draining, metrics: m, trail: audit.New(log), log: log},
		census: front.NewCensus(bounds(c), m.connectionRefused(log))}
	if c.APITokens != "" {
		follow := apitoken.DefaultConfig()
		follow.Prefix = c.APITokens
		s.tokens = apitoken.New(follow, cc, log)
	}
	draining.Left = s.census.Left
	m.watch(cat, draining, launcher, s.census, lazy)
	s.use(c)
	l, err := s.listen(c)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return ignore(cat.Run(life), context.Canceled) })
	lazy.run(life, g.Go)
	if s.tokens != nil {
		g.Go(func() error { return ignore(s.tokens.Run(life), context.Canceled) })
	}
	l.serve(&g)
	if s.front != nil {
		g.Go(func() error { s.front.Watch(life); return nil })
	}
	g.Go(func() error { s.reloads(ctx, signals, load); return nil })
	log.Info("serving", "version", version, "listen", l.main.listener.Addr().String(), "tls", c.TLS != nil, "domain", c.Domain)

	<-ctx.Done()
	c = *s.config.Load()
	log.Info("draining", "delay", c.DrainDelay, "timeout", c.DrainTimeout, "websockets", draining.Open())
	err = draining.Run(l.main.drains(), c.DrainDelay, c.DrainTimeout)
	end()
	launcher.Wait()
	px.Close()
	err = errors.Join(err, l.close(), g.Wait())
	log.Info("ended")
	return err
}

// descriptors is how many c needs: two for each connection, of which the other is to a
// gateway, and some beside. 0 if there is no limit to reckon with.
func descriptors(c config.Config) int {
	if c.Limits.Connections == 0 {
		return 0
	}
	return 2*c.Limits.Connections + c.Shards + spareDescriptors
}

// spareDescriptors are for listeners, logs, Nomad and the rest of Consul.
const spareDescriptors = 100

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
