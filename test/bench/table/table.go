// Package table is what the benchmarks share: medians, the machine they ran on,
// and their sections of docs/benchmarks.md.
package table

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Median of v, which must not be empty; v is left as it is.
func Median[T cmp.Ordered](v []T) T {
	s := slices.Clone(v)
	slices.Sort(s)
	return s[len(s)/2]
}

// Machine says in one line what the figures were measured on, and when.
func Machine() string {
	model := "unknown CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d × %s, %s/%s, %s", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// Publish prints text, and replaces the section of a file by it, if one is named.
func Publish(file, name, text string) error {
	fmt.Print(text)
	if file == "" {
		return nil
	}
	return Replace(file, name, text)
}

// Replace puts text between the section's markers in a Markdown file:
// <!-- NAME --> and <!-- /NAME -->, each on a line of its own.
func Replace(file, name, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := []byte("<!-- "+name+" -->\n"), []byte("<!-- /"+name+" -->")
	i, j := bytes.Index(old, begin), bytes.Index(old, end)
	if i < 0 || j < i {
		return fmt.Errorf("%s has no section %q", file, name)
	}
	next := slices.Concat(old[:i+len(begin)], []byte(text), old[j:])
	return os.WriteFile(file, next, 0o644)
}
