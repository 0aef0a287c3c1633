// Command sandbox-router brings each request to its user's OpenClaw gateway,
// and wakes the gateway if it sleeps.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"openclaw-sandbox/internal/config"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "sandbox-router:", err)
		os.Exit(1)
	}
}

// errUsage: the flags are wrong, and that was said already.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("sandbox-router", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "router.hcl", "the config `file`; docs/router.example.hcl shows every setting")
	check := flags.Bool("check-config", false, "check the config and exit: 0 if it is valid")
	show := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprint(stderr, "sandbox-router brings each request to its user's OpenClaw gateway, and wakes it if it sleeps.\n\nUsage: sandbox-router [-config FILE]\n\n")
		flags.PrintDefaults()
		fmt.Fprint(stderr, "\nNOMAD_ADDR, NOMAD_TOKEN, CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN and their TLS siblings are honoured. SIGHUP reads the config anew.\n")
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return errUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "unexpected argument %q\n", flags.Arg(0))
		flags.Usage()
		return errUsage
	case *show:
		fmt.Fprintln(stdout, version)
		return nil
	}
	// From here on, so that a signal that comes early does not end the process.
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	load := func() (config.Config, error) { return config.Load(*file) }
	c, err := load()
	if err != nil {
		return err
	}
	if *check {
		fmt.Fprintf(stdout, "%s is valid\n", *file)
		return nil
	}
	return serve(ctx, c, reload, load, stderr)
}
