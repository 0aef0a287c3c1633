package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"openclaw-sandbox/internal/config"
	"openclaw-sandbox/internal/front"
)

// live are the fields of a config that can change while the router runs.
var live = map[string]bool{"AccessLog": true, "DrainDelay": true, "DrainTimeout": true, "DevUser": true, "Tokens": true, "JWT": true, "Headers": true,
	"Login": true, "HoldTimeout": true, "TrustedProxies": true, "Limits": true, "Shares": true, "Webhooks": true,
	"StartTimeout": true, "CapacityWait": true, "RetryMin": true, "RetryAfter": true,
	"MaxStarting": true, "MaxQueued": true, "MaxSandboxes": true, "UserStarts": true, "Idle": true}

// fixed are the others, with the names of their settings. Of TLS, only the files'
// names can change; and of Idle, all but the period.
var fixed = map[string]string{"Listen": "listen", "MetricsListen": "metrics_listen", "Domain": "domain", "Scheme": "scheme",
	"RedirectListen": "redirect_listen", "Client": "client", "TLS": "tls or acme, but for cert_file and key_file",
	"ConsulAddress": "consul.address", "Service": "consul.service", "Shards": "consul.shards",
	"NomadAddress": "nomad.address", "Namespace": "nomad.namespace", "Job": "nomad.job",
	"APITokens":   `identity "api"`,
	"DialTimeout": "upstream.dial_timeout", "HeadTimeout": "upstream.head_timeout", "IdleTimeout": "upstream.idle_timeout", "ForwardedClient": "upstream.forwarded_client"}

// merge is the new config with what can not change as it was, and the names of those
// settings that were to change.
func merge(old, new config.Config) (merged config.Config, kept []string) {
	merged = new
	into, was := reflect.ValueOf(&merged).Elem(), reflect.ValueOf(old)
	for i := range into.NumField() {
		name := into.Type().Field(i).Name
		if live[name] {
			continue
		}
		if a, b := was.Field(i).Interface(), into.Field(i).Interface(); !reflect.DeepEqual(withoutFiles(a), withoutFiles(b)) {
			setting := fixed[name]
			if setting == "" {
				setting = name
			}
			kept = append(kept, setting)
		}
		into.Field(i).Set(was.Field(i))
	}
	if old.Idle.Period != new.Idle.Period {
		merged.Idle.Period = old.Idle.Period
		kept = append(kept, "idle.period")
	}
	if old.TLS != nil && new.TLS != nil && old.TLS.ACME == nil && new.TLS.ACME == nil {
		t := *old.TLS
		t.CertFile, t.KeyFile = new.TLS.CertFile, new.TLS.KeyFile
		merged.TLS = &t
	}
	return merged, kept
}

// withoutFiles leaves out of a TLS setting what can change.
func withoutFiles(v any) any {
	if t, ok := v.(*front.TLS); ok && t != nil {
		rest := *t
		rest.CertFile, rest.KeyFile = "", ""
		return &rest
	}
	return v
}

// reloads takes over the config at each signal, until ctx ends.
func (s *server) reloads(ctx context.Context, signals <-chan os.Signal, load func() (config.Config, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		if err := s.reload(load); err != nil {
			problems := []string{err.Error()}
			if bad, ok := errors.AsType[*config.Invalid](err); ok {
				problems = bad.Problems
			}
			for _, p := range problems {
				s.log.Error("the config was not reloaded; the old one stays", "problem", p)
			}
			s.metrics.reload("failed") // when all is said
			continue
		}
		s.metrics.reload("done")
	}
}

func (s *server) reload(load func() (config.Config, error)) error {
	c, err := load()
	if err != nil {
		return err
	}
	old := *s.config.Load()
	c, kept := merge(old, c)
	if err := c.Check(); err != nil { // as with identity "dev", which the listener forbids
		return fmt.Errorf("together with what can not change: %w", err)
	}
	if s.front != nil && c.TLS.ACME == nil {
		if err := s.front.Use(c.TLS.CertFile, c.TLS.KeyFile); err != nil {
			return err
		}
	}
	s.use(c)
	if len(kept) > 0 {
		s.log.Warn("these settings need a restart, and stay as they were", "settings", strings.Join(kept, ", "))
	}
	s.log.Info("config reloaded")
	return nil
}
