// Command dev runs everything on this machine, for real: Consul, Nomad with the
// sandbox driver, an S3 server, a language model that needs no internet, the jobs
// and the router. `make dev` builds what it needs and starts it. Ctrl-C stops all
// of it; the users' state stays in the S3 server's folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"openclaw-sandbox/internal/devcluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, stop, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "make dev:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	source, bin, dir, runtime                 string
	router, metrics, consul, nomad, s3, model int
}

func parse(args []string) (settings, error) {
	var s settings
	f := flag.NewFlagSet("dev", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), "Runs Consul, Nomad, an S3 server, a demo model, the sandbox driver and the router on this machine.\n\n")
		f.PrintDefaults()
	}
	f.StringVar(&s.source, "source", ".", "the repository's root")
	f.StringVar(&s.bin, "bin", "bin", "folder of the built binaries")
	f.StringVar(&s.dir, "dir", defaultDir(), "where state and logs are kept between runs")
	f.StringVar(&s.runtime, "runtime", "", "image (isolates; Linux, root) or raw_exec (isolates nothing); chosen by your rights if empty")
	f.IntVar(&s.router, "port", 8080, "the router's port")
	f.IntVar(&s.metrics, "metrics-port", 9102, "the router's metrics port")
	f.IntVar(&s.consul, "consul-port", 8500, "Consul's port")
	f.IntVar(&s.nomad, "nomad-port", 4646, "Nomad's port")
	f.IntVar(&s.s3, "s3-port", 7070, "the S3 server's port")
	f.IntVar(&s.model, "model-port", 7072, "the demo model's port")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	var err error
	for _, p := range []*string{&s.source, &s.bin, &s.dir} {
		if *p, err = filepath.Abs(*p); err != nil {
			return s, err
		}
	}
	return s, nil
}

// defaultDir keeps state where a system keeps it, or in the user's own folder.
func defaultDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/openclaw-sandbox/dev"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return filepath.Join(home, ".local", "share", "openclaw-sandbox", "dev")
}

// bridge is the interface that joins the sandboxes of make dev.
const (
	bridge       = "openclaw0"
	bridgeSubnet = "172.26.80.0/20"
)

// downLimit bounds the whole shutdown.
const downLimit = 3 * time.Minute

func run(ctx context.Context, stop func(), args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	unlock, err := lock(s.dir)
	if err != nil {
		return err
	}
	defer unlock()
	devcluster.Sweep(s.dir)
	if s.runtime, err = preflight(&s); err != nil {
		return err
	}
	defaults, secrets := provider()
	begin := time.Now()
	stack, err := devcluster.Up(ctx, devcluster.Options{
		Source: s.source, Bin: s.bin, Dir: s.dir, Runtime: s.runtime,
		ConsulPort: s.consul, NomadPort: s.nomad, S3Port: s.s3, ModelPort: s.model,
		Bridge: bridge, BridgeSubnet: bridgeSubnet, SnapshotInterval: "15s",
		Routers:  []devcluster.RouterOptions{{Job: "sandbox-router", Port: s.router, MetricsPort: s.metrics, Identity: `identity "dev" {}`}},
		Defaults: defaults, Secrets: secrets,
		Progress: func(format string, args ...any) { fmt.Printf("  "+format+"\n", args...) },
	})
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", err)
		}
		return err
	}
	greet(stack, s, len(secrets) > 0, time.Since(begin))
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		follow(ctx, stack.Nomad.Client())
	}()
	<-ctx.Done()
	fmt.Println("\nStopping: running replies end and every sandbox saves its state. Press Ctrl-C again to cut replies off.")
	again, stopAgain := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stopAgain()
	stop()
	<-followed
	down, cancel := context.WithTimeout(context.Background(), downLimit)
	defer cancel()
	if err := hurryable(down, again, stack); err != nil {
		return err
	}
	fmt.Printf("Stopped. Your state is in %s; the next `make dev` has it again.\n", stack.S3.Dir)
	return nil
}

// hurryable stops the stack; when again ends it no longer waits for running replies.
func hurryable(ctx, again context.Context, stack *devcluster.Stack) error {
	down := make(chan error, 1)
	go func() { down <- stack.Down(ctx) }()
	select {
	case err := <-down:
		return err
	case <-again.Done():
	}
	fmt.Println("\nCutting off what still runs; what it has on disk is saved.")
	// Down has the last word: Nomad may be gone already.
	if err := stack.Hurry(ctx); err != nil {
		fmt.Println("  (not all could be cut off:", err, ")")
	}
	return <-down
}

func greet(st *devcluster.Stack, s settings, real bool, took time.Duration) {
	fmt.Printf("\nReady after %s.\n\n", took.Round(100*time.Millisecond))
	row := func(what, where string) { fmt.Printf("  %-22s %s\n", what, where) }
	row("Open a sandbox", fmt.Sprintf("http://alice.localhost:%d/  (any name will do in place of alice)", s.router))
	row("Without wildcard DNS", fmt.Sprintf("http://localhost:%d/u/alice/", s.router))
	row("Your own", fmt.Sprintf("http://localhost:%d/  (user me)", s.router))
	row("Chat by HTTP", fmt.Sprintf(`curl -d '{"message":"hello"}' -H 'Content-Type: application/json' http://localhost:%d/u/alice/api/chat`, s.router))
	row("Consul UI", "http://"+st.Consul.Addr+"/ui/")
	row("Nomad UI", "http://"+st.Nomad.Addr+"/ui/")
	row("S3 endpoint", fmt.Sprintf("%s  (bucket %s, key %s, secret in %s)", st.S3.Endpoint(), st.S3.Bucket, st.S3.AccessKey, filepath.Join(s.dir, "s3-secret")))
	row("Router metrics", fmt.Sprintf("http://127.0.0.1:%d/metrics", s.metrics))
	if real {
		row("Model", "your provider's, with the key from the environment")
	} else {
		row("Model", "the demo model; set ANTHROPIC_API_KEY or OPENAI_API_KEY for a real one")
	}
	if s.runtime == "image" {
		row("Isolation", "a network, process and file system namespace per sandbox (image = \"host\": for development)")
	} else {
		row("Isolation", "NONE: without root on Linux the sandboxes run as plain processes of yours (raw_exec)")
	}
	fmt.Print("\nCtrl-C stops all of it.\n\n")
}
