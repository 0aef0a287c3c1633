package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// show prints v as JSON, or as a table of rows under a head.
func (t *tool) show(v any, head string, rows [][]string) error {
	if t.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// say prints one line, or v as JSON.
func (t *tool) say(v any, format string, args ...any) error {
	if t.json {
		return json.NewEncoder(os.Stdout).Encode(v)
	}
	_, err := fmt.Printf(format+"\n", args...)
	return err
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

const barPause = 100 * time.Millisecond

// bar returns a progress callback that draws on the terminal, and what ends its
// line; without a terminal both do nothing.
func bar(what string) (progress func(done, total int64), end func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil, func() {}
	}
	var last time.Time
	return func(done, total int64) {
			if time.Since(last) < barPause && done < total {
				return
			}
			last = time.Now()
			fmt.Fprintf(os.Stderr, "\r\x1b[K%s %s of %s", what, size(done), size(total))
		}, func() {
			fmt.Fprint(os.Stderr, "\r\x1b[K")
		}
}
