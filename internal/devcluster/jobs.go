package devcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/demomodel"
)

// register submits the job files, with the variables of this machine.
func (s *Stack) register(ctx context.Context) error {
	if err := s.putSecrets(ctx); err != nil {
		return err
	}
	if err := s.RegisterSandboxes(ctx, "openclaw", nil); err != nil {
		return err
	}
	for i := range s.o.Routers {
		if err := s.registerRouter(ctx, s.o.Routers[i]); err != nil {
			return err
		}
	}
	return nil
}

// RegisterSandboxes registers the parameterized job under a name; edit (may be
// nil) changes its variables.
func (s *Stack) RegisterSandboxes(ctx context.Context, name string, edit func(vars map[string]any)) error {
	pkg, err := OpenClaw()
	if err != nil {
		return err
	}
	node, err := Tool("node")
	if err != nil {
		return err
	}
	env := map[string]string{"SANDBOX_NODE": node, "SANDBOX_OPENCLAW": pkg}
	if cache := filepath.Join(CacheDir(), "compile-cache"); exists(cache) {
		env["NODE_COMPILE_CACHE"] = cache
	}
	defaults := s.o.Defaults
	if defaults == "" {
		env["OPENCLAW_OFFLINE"] = "1"
		defaults = s.demoDefaults()
	}
	var origins []string
	for _, r := range s.Routers {
		_, port, _ := strings.Cut(r, ":")
		origins = append(origins, "http://{user}.localhost:"+port, "http://localhost:"+port)
	}
	vars := map[string]any{
		"command": filepath.Join(s.o.Dir, "libexec", "start.sh"), "env": env, "gateway_defaults": defaults, "origins": origins,
		// Shares, not limits: a small machine runs several that are mostly idle.
		"cpu": 250, "network": "bridge", "address_mode": "driver", "trusted_proxies": []string{s.BridgeIP},
	}
	if s.isolated() {
		vars["webhook_ports"] = map[string]int{"telegram": 8787}
	} else {
		vars["network"], vars["address_mode"], vars["trusted_proxies"] = "host", "host", []string{"127.0.0.1", "::1"}
	}
	if edit != nil {
		edit(vars)
	}
	return s.submit(ctx, "openclaw.nomad.hcl", name, vars)
}

// demoDefaults are OpenClaw settings that use the demo model.
func (s *Stack) demoDefaults() string {
	settings := map[string]any{
		"agents": map[string]any{"defaults": map[string]any{
			"model":     map[string]any{"primary": "demo/" + demomodel.Model},
			"models":    map[string]any{"demo/" + demomodel.Model: map[string]any{"alias": "Demo"}},
			"heartbeat": map[string]any{"every": "0m"},
		}},
		"models": map[string]any{"mode": "merge", "providers": map[string]any{"demo": map[string]any{
			"baseUrl": "http://" + s.ModelAddr + "/v1", "apiKey": "none", "api": "openai-completions",
			"models": []any{map[string]any{"id": demomodel.Model, "name": "Demo model", "reasoning": false, "input": []string{"text"},
				"cost":          map[string]int{"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
				"contextWindow": 128000, "maxTokens": 4096}},
		}}},
	}
	maps.Copy(settings, s.o.Settings)
	b, err := json.Marshal(settings)
	if err != nil {
		panic(err) // the caller's settings are no JSON
	}
	return string(b)
}

func (s *Stack) registerRouter(ctx context.Context, r RouterOptions) error {
	if r.Sandboxes == "" {
		r.Sandboxes = "openclaw"
	}
	config := fmt.Sprintf(`
listen         = "127.0.0.1:%d"
metrics_listen = "127.0.0.1:%d"
domain         = "localhost"
drain_delay    = "500ms"
drain_timeout  = "5s"
limits {
  # Tests ask again and again, all from one address.
  requests_per_minute_per_user    = 0
  requests_per_minute_per_address = 0
}
%s
consul {
  address = %q
}
nomad {
  address = %q
  job     = %q
}
`, r.Port, r.MetricsPort, r.Identity, s.Consul.Addr, "http://"+s.Nomad.Addr, r.Sandboxes)
	return s.submit(ctx, "router.nomad.hcl", r.Job, map[string]any{
		"count": 1, "driver": "raw_exec", "binary": filepath.Join(s.o.Bin, "sandbox-router"), "config": config, "port": r.Port, "metrics_port": r.MetricsPort,
		"shutdown_delay": "0s", // nobody follows Consul here, and Ctrl-C should not take longer
	})
}

// submit parses a job file with variables and registers it under a name.
func (s *Stack) submit(ctx context.Context, file, name string, vars map[string]any) error {
	text, err := os.ReadFile(filepath.Join(s.o.Source, "jobs", file))
	if err != nil {
		return err
	}
	var lines strings.Builder
	for k, v := range vars {
		b, err := json.Marshal(v) // JSON is HCL, but for template signs in strings
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%s = %s\n", k, strings.NewReplacer("${", "$${", "%{", "%%{").Replace(string(b)))
	}
	c := s.Nomad.Client()
	job, err := c.Jobs().ParseHCLOpts(&nomad.JobsParseRequest{JobHCL: string(text), Variables: lines.String(), Canonicalize: true})
	if err != nil {
		return fmt.Errorf("jobs/%s: %w", file, err)
	}
	job.ID, job.Name = &name, &name
	if _, _, err := c.Jobs().Register(job, (&nomad.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("register job %s: %w", name, err)
	}
	return nil
}

// putSecrets keeps the gateways' secrets where only their job can read them.
func (s *Stack) putSecrets(ctx context.Context) error {
	const path = "nomad/jobs/openclaw"
	w := (&nomad.WriteOptions{}).WithContext(ctx)
	if len(s.o.Secrets) == 0 {
		if _, err := s.Nomad.Client().Variables().Delete(path, w); err != nil {
			return fmt.Errorf("clear the secrets: %w", err)
		}
		return nil
	}
	if _, _, err := s.Nomad.Client().Variables().Update(&nomad.Variable{Path: path, Items: s.o.Secrets}, w); err != nil {
		return fmt.Errorf("keep the secrets: %w", err)
	}
	return nil
}

// waitRouters waits until every router passes in Consul.
func (s *Stack) waitRouters(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, agentStart)
	defer cancel()
	q := (&consul.QueryOptions{WaitTime: time.Second}).WithContext(ctx)
	for {
		entries, meta, err := s.Consul.Client().Health().Service("sandbox-router", "", true, q)
		if err == nil && len(entries) >= len(s.o.Routers) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("it is not ready: %w; see `nomad job status sandbox-router`", ctx.Err())
		}
		if err == nil {
			q.WaitIndex = meta.LastIndex
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
