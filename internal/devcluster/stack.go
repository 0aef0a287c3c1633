package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/demomodel"
	"openclaw-sandbox/internal/pause"
)

// Options describe a whole stack.
type Options struct {
	Source  string // the repository's root, for jobs/ and docker/
	Bin     string // folder with the binaries sandbox and sandbox-router
	Dir     string // state, logs; kept between runs
	Runtime string // image or raw_exec

	// Ports; 0 is a free one.
	ConsulPort, NomadPort, S3Port, ModelPort int

	Bridge       string // for runtime image
	BridgeSubnet string
	Allow        []string // what sandboxes may reach on this machine, beside the model: ip:port

	SnapshotInterval string
	// DataDir is the driver's, with the running states and the spool; below Dir if empty.
	DataDir string
	// DriverConfig is HCL text, further blocks of the driver's config.
	DriverConfig string
	Routers      []RouterOptions
	// Defaults are OpenClaw settings, as JSON, in place of the demo model's; Secrets
	// are environment for the gateways, kept as a Nomad variable.
	Defaults string
	Secrets  map[string]string
	// Settings are further OpenClaw settings, beside the demo model's.
	Settings map[string]any

	Progress func(format string, args ...any)
}

// RouterOptions describe one router.
type RouterOptions struct {
	Job         string // the Nomad job's name
	Port        int    // 0 is a free one
	MetricsPort int
	Identity    string // HCL, the identity blocks, and others that the router shall have
	Sandboxes   string // the parameterized job; "openclaw" if empty
}

// Stack is a running stack.
type Stack struct {
	Consul    *Consul
	Nomad     *Nomad
	S3        *S3
	ModelAddr string // as sandboxes reach it
	BridgeIP  string
	Routers   []string // addresses, in the order of the options

	o     Options
	model *http.Server
}

// Up starts everything, in order, and returns when the routers serve. What was
// started is stopped again if it fails.
func Up(ctx context.Context, o Options) (_ *Stack, err error) {
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	s := &Stack{o: o}
	defer func() {
		if err != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, s.Down(stop))
		}
	}()
	if s.o.DataDir == "" {
		s.o.DataDir = filepath.Join(o.Dir, "sandboxes")
	}
	// Others may pass through to start.sh, and see nothing on the way.
	if err := errors.Join(os.MkdirAll(o.Dir, 0o711), os.Chmod(o.Dir, 0o711)); err != nil {
		return nil, fmt.Errorf("make the stack's folder: %w", err)
	}
	// The agents begin anew: what is kept between runs is the users' state.
	for _, d := range []string{"nomad", "consul"} {
		if err := os.RemoveAll(filepath.Join(o.Dir, d)); err != nil {
			return nil, fmt.Errorf("clear what an earlier run left: %w; something of it may still run", err)
		}
	}
	if err := s.pickPorts(); err != nil {
		return nil, err
	}
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"Consul", s.startConsul}, {"the S3 server", s.startS3}, {"the demo model", s.startModel},
		{"Nomad with the sandbox driver", s.startNomad}, {"the jobs", s.register}, {"the router", s.waitRouters},
	}
	for _, step := range steps {
		o.Progress("Starting %s", step.what)
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("start %s: %w", step.what, err)
		}
	}
	return s, nil
}

// Sweep ends what an earlier stack in dir left running and mounted when it was killed.
// Only who knows that no stack runs there may call it.
func Sweep(dir string) {
	for _, agent := range []string{"nomad", "s3", "consul"} {
		killStrays(mark(filepath.Join(dir, agent)))
	}
	unmountUnder(dir)
}

// Dir is the stack's folder.
func (s *Stack) Dir() string { return s.o.Dir }

func (s *Stack) isolated() bool { return s.o.Runtime == "image" }

// pickPorts fixes the ports that others must know before anything starts.
func (s *Stack) pickPorts() error {
	s.BridgeIP = "127.0.0.1"
	if s.isolated() {
		p, err := netip.ParsePrefix(s.o.BridgeSubnet)
		if err != nil {
			return fmt.Errorf("bridge subnet: %w", err)
		}
		s.BridgeIP = p.Masked().Addr().Next().String()
	}
	want := []*int{&s.o.ModelPort, &s.o.NomadPort}
	for i := range s.o.Routers {
		want = append(want, &s.o.Routers[i].Port, &s.o.Routers[i].MetricsPort)
	}
	free, err := FreePorts(len(want))
	if err != nil {
		return err
	}
	for i, p := range want {
		if *p == 0 {
			*p = free[i]
		}
	}
	s.ModelAddr = net.JoinHostPort(s.BridgeIP, strconv.Itoa(s.o.ModelPort))
	for _, r := range s.o.Routers {
		s.Routers = append(s.Routers, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port)))
	}
	return nil
}

func (s *Stack) startConsul(ctx context.Context) (err error) {
	s.Consul, err = StartConsul(ctx, filepath.Join(s.o.Dir, "consul"), s.o.ConsulPort)
	return err
}

func (s *Stack) startS3(ctx context.Context) (err error) {
	// The keys only guard this machine's own loopback; they are kept so that a
	// later run opens the same store.
	secret, err := secretFile(filepath.Join(s.o.Dir, "s3-secret"))
	if err != nil {
		return err
	}
	s.S3, err = StartS3(ctx, filepath.Join(s.o.Dir, "s3"), s.o.S3Port, "openclaw-dev", secret)
	return err
}

func (s *Stack) startModel(ctx context.Context) error {
	l, err := demomodel.Listen(ctx, s.ModelAddr)
	if err != nil {
		return err
	}
	s.model = &http.Server{Handler: demomodel.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go s.model.Serve(l) // ends with Close in Down
	return nil
}

func (s *Stack) startNomad(ctx context.Context) (err error) {
	plugins := filepath.Join(s.o.Dir, "plugins")
	if err := copyFile(filepath.Join(s.o.Bin, "sandbox"), filepath.Join(plugins, "sandbox"), 0o755); err != nil {
		return err
	}
	// The sandbox's user must be able to read these.
	for _, f := range []string{"start.sh", "prepare.mjs", "warm.mjs"} {
		if err := copyFile(filepath.Join(s.o.Source, "docker", f), filepath.Join(s.o.Dir, "libexec", f), 0o755); err != nil {
			return err
		}
	}
	s.Nomad, err = StartNomad(ctx, NomadOptions{Dir: filepath.Join(s.o.Dir, "nomad"), Port: s.o.NomadPort, ConsulAddr: s.Consul.Addr,
		PluginDir: plugins, PluginConfig: s.pluginConfig(), Bridge: s.o.Bridge, BridgeSubnet: s.o.BridgeSubnet})
	return err
}

func (s *Stack) pluginConfig() string {
	return fmt.Sprintf(`
runtime  = %q
data_dir = %q
store {
  url               = "s3://%s"
  endpoint          = %q
  region            = "us-east-1"
  access_key_id     = %q
  secret_access_key = %q
  path_style        = true
}
snapshot {
  interval = %q
}
egress {
  bridge = %q
  allow  = %s
}
%s
`, s.o.Runtime, s.o.DataDir, s.S3.Bucket, s.S3.Endpoint(), s.S3.AccessKey, s.S3.SecretKey, s.o.SnapshotInterval, s.o.Bridge, quoted(append([]string{s.ModelAddr}, s.o.Allow...)), s.o.DriverConfig)
}

// quoted is an HCL list.
func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// downWait bounds how long sandboxes may take to save and end.
const downWait = 90 * time.Second

// Down stops everything in an order that loses nothing: jobs first, so that each
// sandbox saves, then the agents. It may be called on a part of a stack.
func (s *Stack) Down(ctx context.Context) error {
	var errs []error
	if s.Nomad != nil {
		wait, cancel := context.WithTimeout(ctx, downWait)
		errs = append(errs, s.stopJobs(wait))
		cancel()
		errs = append(errs, s.Nomad.Stop(ctx))
	}
	if s.model != nil {
		errs = append(errs, s.model.Close())
	}
	errs = append(errs, s.S3.Stop(ctx), s.Consul.Stop(ctx))
	if s.isolated() {
		errs = append(errs, s.sweepNode(ctx))
	}
	return errors.Join(errs...)
}

// stopJobs ends all jobs and waits until their last task has.
func (s *Stack) stopJobs(ctx context.Context) error {
	c := s.Nomad.Client()
	q := (&nomad.QueryOptions{}).WithContext(ctx)
	w := (&nomad.WriteOptions{}).WithContext(ctx)
	jobs, _, err := c.Jobs().List(q)
	if err != nil {
		return fmt.Errorf("stop the jobs: %w", err)
	}
	for _, j := range jobs {
		if _, _, err := c.Jobs().Deregister(j.ID, false, w); err != nil {
			return fmt.Errorf("stop job %s: %w", j.ID, err)
		}
	}
	said := ""
	for {
		busy := ""
		allocs, _, err := c.Allocations().List(q)
		if err != nil {
			return fmt.Errorf("stop the jobs: %w", err)
		}
		for _, a := range allocs {
			for _, ts := range a.TaskStates {
				if ts.State != "dead" {
					busy = a.JobID
				}
			}
		}
		if busy == "" {
			break
		}
		if busy != said {
			s.o.Progress("Saving and stopping %s", busy)
			said = busy
		}
		if !pause.For(ctx, 500*time.Millisecond) {
			return fmt.Errorf("job %s did not end: %w", busy, ctx.Err())
		}
	}
	for _, j := range jobs {
		c.Jobs().Deregister(j.ID, true, w)
	}
	return c.System().GarbageCollect()
}
