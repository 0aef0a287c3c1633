package main

import (
	"cmp"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"openclaw-sandbox/test/bench/table"
)

// of is the median of a figure over the rounds.
func of[T cmp.Ordered](v []sample, figure func(sample) T) T {
	var all []T
	for _, s := range v {
		all = append(all, figure(s))
	}
	return table.Median(all)
}

func cpuOf(v []sample) time.Duration { return of(v, func(s sample) time.Duration { return s.cpu }) }

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
func us(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Microsecond)) }

// render makes the section.
func (b *bench) render() string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s. %s. Medians of %d rounds of %s each, order reversed every round; %d connections at work.\n\n", table.Machine(), versions(), b.rounds, b.duration, connections)
	for _, r := range rows {
		by := b.samples[r.name]
		fmt.Fprintf(&w, "%s:\n\n| proxy | **CPU µs per request** | slowest – fastest round | times nginx | requests a second | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|\n", r.name)
		for _, p := range b.peers {
			v := by[p.name]
			least := slices.MinFunc(v, func(a, b sample) int { return cmp.Compare(a.cpu, b.cpu) })
			most := slices.MaxFunc(v, func(a, b sample) int { return cmp.Compare(a.cpu, b.cpu) })
			fmt.Fprintf(&w, "| %s | **%s** | %s – %s | %.2f | %.0f | %s | %s |\n", p.name, us(cpuOf(v)), us(most.cpu), us(least.cpu), float64(cpuOf(v))/float64(cpuOf(by["nginx"])),
				of(v, func(s sample) float64 { return s.rate }), ms(of(v, func(s sample) time.Duration { return s.p50 })), ms(of(v, func(s sample) time.Duration { return s.p99 })))
		}
		fmt.Fprintln(&w)
	}
	fmt.Fprintf(&w, "A stream's first byte, later than without proxy (one at a time, in turns with requests to the stub itself), and %d idle WebSockets (proportional set size; the kernel's socket buffers are not in it):\n\n", b.idling)
	fmt.Fprintln(&w, "| proxy | **first byte, ms later** | **KiB per idle WebSocket** | descriptors | CPU µs to open one |\n|---|---|---|---|---|")
	for _, p := range b.peers {
		i := b.idle[p.name]
		fmt.Fprintf(&w, "| %s | **%s** | **%.1f** | %.2f | %s |\n", p.name, ms(table.Median(b.added[p.name])), i.memory/1024, i.descriptors, us(i.setup))
	}
	fmt.Fprintln(&w, "\nIn our figures, and in nobody else's; alone and in a loop:\n\n| per request | µs |\n|---|---|")
	for _, p := range b.parts {
		fmt.Fprintf(&w, "| %s | %.2f |\n", p.name, float64(p.took)/1000)
	}
	b.goals(&w)
	return w.String()
}

// goals compares with what the router is to reach.
func (b *bench) goals(w *strings.Builder) {
	fmt.Fprintln(w, "\n| goal | measured | |\n|---|---|---|")
	goal := func(text string, measured, limit float64, unit string) {
		verdict := "met"
		if measured > limit {
			verdict = "**missed**"
		}
		fmt.Fprintf(w, "| %s | %.2f%s | %s |\n", text, measured, unit, verdict)
	}
	ratio := func(row, peer string) (float64, bool) {
		by := b.samples[row]
		if len(by[peer]) == 0 {
			return 0, false
		}
		return float64(cpuOf(by["ours"])) / float64(cpuOf(by[peer])), true
	}
	for _, g := range []struct {
		row, peer string
		limit     float64
	}{
		{rows[0].name, "nginx", 1.7}, {rows[0].name, "Caddy", 0.5}, {rows[0].name, "configurable-http-proxy", 0.5},
		{rows[1].name, "nginx", 0.5}, {rows[2].name, "nginx", 1.25}, {rows[3].name, "nginx", 0.3},
	} {
		if got, ok := ratio(g.row, g.peer); ok {
			goal(fmt.Sprintf("%s: at most %.2f times the CPU of %s", g.row, g.limit, g.peer), got, g.limit, "")
		}
	}
	for _, p := range b.parts {
		if limit, ok := map[string]float64{partCookie: 5, partJWT: 20}[p.name]; ok {
			goal(p.name, float64(p.took)/float64(time.Microsecond), limit, " µs")
		}
	}
	goal("a stream's first byte less than 0.2 ms later", float64(table.Median(b.added["ours"]))/float64(time.Millisecond), 0.2, " ms")
	i := b.idle["ours"]
	goal("an idle WebSocket in at most 2 KiB", i.memory/1024, 2, " KiB")
	goal("an idle WebSocket with 2 descriptors", i.descriptors, 2.01, "")
}

// versions of the peers.
func versions() string {
	var all []string
	for _, c := range [][]string{{"nginx", "-v"}, {"haproxy", "-v"}, {"caddy", "version"}} {
		out, _ := exec.Command(c[0], c[1:]...).CombinedOutput()
		all = append(all, c[0]+" "+number.FindString(string(out)))
	}
	return strings.Join(append(all, "configurable-http-proxy "+httpProxyVersion()), ", ")
}

var number = regexp.MustCompile(`\d+(\.\d+)+`)
