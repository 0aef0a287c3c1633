package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	slow    = time.Second // a passed test is named from here on
	slowest = 10          // tests in the closing table
	// startMark begins a line by which a test says that the real gateway was started.
	startMark = "openclaw-start user="
)

// event is one line of `go test -json` (go doc test2json, go help buildjson).
type event struct {
	Time                                      time.Time
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64 // seconds
}

type test struct{ pkg, name string }

type finished struct {
	test
	took time.Duration
}

// report is the state of one run.
type report struct {
	mu                      sync.Mutex // guards what follows, and the lines of out
	out                     io.Writer
	output                  map[test]*strings.Builder // a package's own has no name
	running                 map[test]time.Time
	done                    []finished
	failedIn                map[string]int // tests by package
	passed, failed, skipped int            // top-level tests; a package that fails without a test counts as one
	packages, starts        int
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[test]*strings.Builder{}, running: map[test]time.Time{}, failedIn: map[string]int{}}
}

// read follows a stream of events to its end. Lines that are no events are printed.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) line(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action == "" {
		fmt.Fprintln(r.out, strings.TrimRight(line, "\n"))
		return
	}
	top, _, sub := strings.Cut(e.Test, "/")
	of := test{e.Package, top}
	took := time.Duration(e.Elapsed * float64(time.Second))
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.starts += strings.Count(e.Output, startMark)
		b := r.output[of]
		if b == nil {
			b = &strings.Builder{}
			r.output[of] = b
		}
		b.WriteString(e.Output)
	case "run":
		if !sub {
			r.running[of] = e.Time
		}
	case "pass", "fail", "skip":
		switch {
		case e.Test == "":
			r.endPackage(e.Package, e.Action, took)
		case !sub:
			r.endTest(of, e.Action, took)
		}
	}
}

func (r *report) endTest(of test, action string, took time.Duration) {
	delete(r.running, of)
	r.done = append(r.done, finished{of, took})
	switch action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped++
	case "fail":
		r.failed++
		r.failedIn[of.pkg]++
		r.printOutput(of)
	}
	if action == "fail" || took > slow {
		fmt.Fprintf(r.out, "  %s %s (%s, %s)\n", action, of.name, short(of.pkg), took.Round(10*time.Millisecond))
	}
	delete(r.output, of)
}

func (r *report) endPackage(pkg, action string, took time.Duration) {
	r.packages++
	if action == "fail" {
		// A panic or a timeout ends a package in the middle of its tests.
		for of := range r.running {
			if of.pkg == pkg {
				r.printOutput(of)
			}
		}
		r.printOutput(test{pkg: pkg})
		if r.failedIn[pkg] == 0 {
			r.failed++
		}
	}
	for of := range r.running {
		if of.pkg == pkg {
			delete(r.running, of)
		}
	}
	for of := range r.output {
		if of.pkg == pkg {
			delete(r.output, of)
		}
	}
	if action != "skip" { // it has no tests
		fmt.Fprintf(r.out, "%s %s (%s)\n", action, short(pkg), took.Round(10*time.Millisecond))
	}
}

func (r *report) printOutput(of test) {
	if b := r.output[of]; b != nil {
		fmt.Fprintln(r.out, strings.TrimRight(b.String(), "\n"))
	}
}

// progress prints which tests run at that time.
func (r *report) progress(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := []string{}
	for of, since := range r.running {
		names = append(names, fmt.Sprintf("%s (%s, %s)", of.name, short(of.pkg), now.Sub(since).Round(time.Second)))
	}
	slices.Sort(names)
	if len(names) == 0 {
		names = []string{"no test; packages are being built or started"}
	}
	fmt.Fprintf(r.out, "running: %s\n", strings.Join(names, ", "))
}

// summary prints the slowest tests, the starts and the closing line.
func (r *report) summary() {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.done, func(a, b finished) int { return int(b.took - a.took) })
	fmt.Fprintln(r.out, "slowest tests:")
	for _, f := range r.done[:min(slowest, len(r.done))] {
		fmt.Fprintf(r.out, "  %8s  %s (%s)\n", f.took.Round(10*time.Millisecond), f.name, short(f.pkg))
	}
	fmt.Fprintf(r.out, "starts of the real gateway: %d\n", r.starts)
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
}

func short(pkg string) string { return strings.TrimPrefix(pkg, "openclaw-sandbox/") }
