package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"openclaw-sandbox/test/bench/table"
)

var operations = []operation{
	{"restore", "A", false}, {"restore", "B", false}, {"restore", "C", false},
	{"restore", "A", true}, {"restore", "B", true}, {"restore", "C", true},
	{"save", "A", false}, {"save", "B", false}, {"save", "A", true}, {"save", "B", true},
}

func (o operation) String() string {
	text := o.verb + " " + o.set
	if o.verb == "save" {
		text = map[string]string{"A": "save, 100 files of A changed", "B": "save, 50 pages in B changed"}[o.set]
	}
	if o.slow {
		text += ", +30 ms"
	}
	return text
}

// wall is the median of what an operation took; 0 if it was not measured.
func (b *bench) wall(op operation, name string) time.Duration {
	var v []time.Duration
	for _, u := range b.took[op][name] {
		v = append(v, u.Wall)
	}
	if len(v) == 0 {
		return 0
	}
	return table.Median(v)
}

// fastest is the fastest peer.
func (b *bench) fastest(op operation) time.Duration {
	var v []time.Duration
	for _, name := range peers {
		if d := b.wall(op, name); d > 0 {
			v = append(v, d)
		}
	}
	if len(v) == 0 {
		return 0
	}
	return slices.Min(v)
}

// factor is how many times faster we are.
func (b *bench) factor(op operation, than time.Duration) float64 {
	if us := b.wall(op, nameOurs); us > 0 {
		return than.Seconds() / us.Seconds()
	}
	return 0
}

func (b *bench) render() string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s. Medians of %d, in seconds (fastest – slowest). rclone v1.76.0, s5cmd v2.3.0, restic v0.18.0, kopia v0.21.1; S3 server: versitygw. Everything is on %s.\n\n", table.Machine(), b.rounds, b.volume)
	for _, d := range b.sets {
		fmt.Fprintf(&w, "- %s: %d MB, %s\n", d.name, d.bytes/mega, d.text)
	}
	fmt.Fprint(&w, `
Seven of eight files are text of which zstd makes about a third, the others do not compress. "+30 ms": a proxy adds 30 ms to every round trip.
The server is on the same machine and shares its cores, so nothing limits the bandwidth: what a transfer would take on a real line follows from the
megabytes below. A connection opens without delay, which serves best who opens many.
Restores go into an empty folder, each by a new process without caches of its own. Our saves are by a process that goes on, as the driver does; the
others' are their incremental commands, with their caches.

`)
	header := "| " + strings.Join(order, " | ") + " |\n|" + strings.Repeat("---|", len(order)+1)
	fmt.Fprintf(&w, "| s %s---|---|---|\n", strings.Replace(header, "\n", " fastest peer / ours | one object / ours | local file / ours |\n", 1))
	for _, op := range operations {
		fmt.Fprintf(&w, "| %s |", op)
		for _, name := range order {
			if t := b.took[op][name]; len(t) == 0 {
				fmt.Fprint(&w, " |")
			} else {
				by := func(x, y usage) int { return int(x.Wall - y.Wall) }
				fmt.Fprintf(&w, " %.2f (%.2f – %.2f) |", b.wall(op, name).Seconds(), slices.MinFunc(t, by).Wall.Seconds(), slices.MaxFunc(t, by).Wall.Seconds())
			}
		}
		for _, than := range []time.Duration{b.fastest(op), b.wall(op, nameFloor), b.wall(op, nameLocal)} {
			if than == 0 {
				fmt.Fprint(&w, " |")
			} else {
				fmt.Fprintf(&w, " **%.1f** |", b.factor(op, than))
			}
		}
		fmt.Fprintln(&w)
	}
	b.renderCosts(&w, header)
	b.renderGoals(&w)
	return w.String()
}

// renderCosts tells what the operations cost beside time.
func (b *bench) renderCosts(w *strings.Builder, header string) {
	fmt.Fprintf(w, "\nCPU seconds, user and system, of all processes but the server's:\n\n| CPU s %s\n", header)
	for _, op := range operations {
		fmt.Fprintf(w, "| %s |", op)
		for _, name := range order {
			var v []time.Duration
			for _, u := range b.took[op][name] {
				v = append(v, u.CPU)
			}
			if len(v) == 0 {
				fmt.Fprint(w, " |")
			} else {
				fmt.Fprintf(w, " %.2f |", table.Median(v).Seconds())
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\nRequests and megabytes, counted in a pass of its own that is not timed:\n\n| requests, MB up, MB down %s\n", header)
	for _, op := range operations {
		if op.slow {
			continue
		}
		fmt.Fprintf(w, "| %s |", op)
		for _, name := range order {
			n, ok := b.moved[op][name]
			if !ok || name == nameLocal {
				fmt.Fprint(w, " |")
				continue
			}
			fmt.Fprintf(w, " %d, %.2f, %.2f |", n.reads+n.writes, float64(n.up)/mega, float64(n.down)/mega)
		}
		fmt.Fprintln(w)
	}
}

// renderGoals holds the figures against what we want of them.
func (b *bench) renderGoals(w *strings.Builder) {
	if len(b.contenders) < len(order) {
		return
	}
	fmt.Fprint(w, "\n| goal | measured | |\n|---|---|---|\n")
	goal := func(text, value string, met bool) {
		fmt.Fprintf(w, "| %s | %s | %s |\n", text, value, map[bool]string{true: "met", false: "**missed**"}[met])
	}
	for i, least := range []float64{5, 2, 1} {
		op := operations[i]
		f := b.factor(op, b.fastest(op))
		goal(fmt.Sprintf("%s: %.0f times as fast as the fastest peer", op, least), fmt.Sprintf("%.1f", f), f >= least)
	}
	for _, op := range operations[:3] {
		one, local := b.factor(op, b.wall(op, nameFloor)), b.factor(op, b.wall(op, nameLocal))
		goal(fmt.Sprintf("%s: as fast as tar + zstd, from one object and from a local file", op), fmt.Sprintf("%.2f, %.2f", one, local), one >= 1 && local >= 1)
	}
	a, pages := operation{"save", "A", false}, operation{"save", "B", false}
	f, n := b.factor(a, b.fastest(a)), b.moved[a][nameOurs]
	goal(fmt.Sprintf("%s: 4 times as fast as the fastest peer", a), fmt.Sprintf("%.1f", f), f >= 4)
	goal(a.String()+": 2 PUTs", fmt.Sprintf("%d PUTs, %d other requests", n.puts, n.reads+n.writes-n.puts), n.puts == 2 && n.reads+n.writes == 2)
	over := float64(n.up) / float64(b.changed)
	goal(a.String()+": sends at most 1.3 times what changed, compressed", fmt.Sprintf("%.2f (%.2f MB)", over, float64(n.up)/mega), over <= 1.3)
	up := b.moved[pages][nameOurs].up
	goal(pages.String()+": sends at most 400 KB", fmt.Sprintf("%d KB", up/kilo), up <= 400*kilo)
	p := b.pause
	held := func(v []time.Duration) string {
		return fmt.Sprintf("%.1f ms (%.1f – %.1f)", ms(table.Median(v)), ms(slices.Min(v)), ms(slices.Max(v)))
	}
	goal(fmt.Sprintf("a sandbox with %d MB stands still for less than 30 ms per save (median of %d; 30 files, 5 transcripts, 20 database pages changed)", p.state/mega, pauseRounds),
		held(p.idle)+"; with a core taken by others "+held(p.busy), table.Median(p.busy) < 30*time.Millisecond && table.Median(p.idle) < 30*time.Millisecond)
	const bound = 256 * mega
	var rss [3]int64
	for i, op := range operations[:3] {
		for _, u := range b.took[op][nameOurs] {
			rss[i] = max(rss[i], u.RSS)
		}
	}
	goal("memory of a restore, at most 256 MB whatever the state's size", fmt.Sprintf("A %d, B %d, C %d MB", rss[0]/mega, rss[1]/mega, rss[2]/mega), slices.Max(rss[:]) <= bound)
	first := []int64{b.seeded["A"].RSS, b.seeded["B"].RSS, b.seeded["C"].RSS}
	goal("memory of a first save, at most 256 MB", fmt.Sprintf("A %d, B %d, C %d MB", first[0]/mega, first[1]/mega, first[2]/mega), slices.Max(first) <= bound)
	b.renderBill(w)
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// renderBill tells what one active user costs a year on Cloudflare R2.
func (b *bench) renderBill(w *strings.Builder) {
	const (
		hours, days    = 8, 365
		classA, classB = 4.50 / 1e6, 0.36 / 1e6 // dollars per request
		storage        = 0.015 / 1e9            // dollars per byte and month
		history        = 15                     // days that old segments stay: 14 daily snapshots, a day of grace
		savesADay      = hours * 60             // interval = "60s", and something changes all the time
		keptADay       = hours * 6              // history every = "10m"
		startsADay     = 4                      // a claim and a last save each, beside the restore
	)
	p := b.pause
	each := float64(p.sent.up) / float64(p.saves)
	puts := float64(p.sent.puts) / float64(p.saves)
	gets := float64(b.moved[operation{"restore", "B", false}][nameOurs].reads)
	writes := days * (savesADay*puts + keptADay + startsADay*3)
	reads := days * startsADay * gets
	stored := float64(p.first) + each*savesADay*history
	bill := [3]float64{writes * classA, reads * classB, stored * storage * 12}
	fmt.Fprintf(w, `
One active user on Cloudflare R2 costs **$%.2f a year**: $%.2f for %.0f writes, $%.2f for %.0f reads, $%.2f for %.2f GB. Assumed: the driver's default
settings; %d MB of state that changes all the time for %d hours every day, so that there is a save each minute, of %.1f PUTs and %.0f KB (measured, as
above); a history object each ten minutes; four starts a day; every segment of the last %d days still stored. Prices: $4.50 and $0.36 a million
requests of class A and B, $0.015 per GB and month.
`, bill[0]+bill[1]+bill[2], bill[0], writes, bill[1], reads, bill[2], stored/1e9, p.state/mega, hours, puts, each/kilo, history)
}
