// Command report runs `go test -json` with its arguments and prints a short
// account of it: each package, each test that took longer than a second, the whole
// output of what failed, every 30 seconds the tests that run, and at the end the
// slowest tests, the number of starts of the real gateway and a line such as
// "312 passed, 0 failed, 2 skipped". It exits as go test did. Without arguments it
// reads such a stream from standard input, and exits with 1 if anything failed.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// stillRunning is the time between two lines about the tests that run.
const stillRunning = 30 * time.Second

func main() {
	code, err := run(os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	os.Exit(code)
}

// run reports on go test with these arguments, or on in if there are none, and
// returns the exit code.
func run(args []string, in io.Reader, out io.Writer) (int, error) {
	r := newReport(out)
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		tick := time.NewTicker(stillRunning)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.progress(time.Now())
			case <-done:
				return
			}
		}
	}()
	code, err := follow(r, args, in)
	close(done)
	<-finished
	r.summary()
	return code, err
}

func follow(r *report, args []string, in io.Reader) (int, error) {
	if len(args) == 0 {
		if err := r.read(in); err != nil {
			return 1, fmt.Errorf("read the events: %w", err)
		}
		if r.failed > 0 || r.packages == 0 {
			return 1, nil
		}
		return 0, nil
	}
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start go test: %w", err)
	}
	rerr := r.read(events)
	if rerr != nil {
		io.Copy(io.Discard, events) // go test must not block on a full pipe
	}
	err = cmd.Wait()
	switch {
	case err == nil && rerr == nil:
		return 0, nil
	case err == nil:
		return 1, fmt.Errorf("read the events of go test: %w", rerr)
	}
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		return code, rerr
	}
	return 1, fmt.Errorf("go test: %w", err)
}
