package devcluster

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// netnsDir is where Nomad keeps the network namespaces of allocations.
const netnsDir = "/run/netns"

// allocID finds the allocation in the comment of a rule that the CNI plugins made.
var allocID = regexp.MustCompile(`id: "([0-9a-f-]{36})"`)

// sweepNetwork removes the bridge, and what sandboxes on it leave if they were
// not stopped by Nomad: their namespaces and their rules. Nomad's own chain goes
// with its last rule. Nothing to remove is the normal case, so no step says so.
func sweepNetwork(bridge, subnet string) {
	prefix, err := netip.ParsePrefix(subnet)
	if err != nil {
		return
	}
	iptables := func(args ...string) []byte { out, _ := exec.Command("iptables", args...).Output(); return out }
	allocs := map[string]bool{}
	for _, table := range []string{"nat", "filter"} {
		var rules [][]string
		for line := range strings.Lines(string(iptables("-t", table, "-S"))) {
			if r := words(line); len(r) > 2 && r[0] == "-A" {
				rules = append(rules, r)
			}
		}
		ours := func(r []string) bool {
			id := allocID.FindStringSubmatch(strings.Join(r, " "))
			within := slices.ContainsFunc(r, func(w string) bool {
				p, err := netip.ParsePrefix(w)
				return err == nil && p.Bits() >= prefix.Bits() && prefix.Contains(p.Addr())
			})
			if within && id != nil {
				allocs[id[1]] = true
			}
			return within || id != nil && allocs[id[1]]
		}
		for _, r := range rules {
			ours(r) // some rules of an allocation name only its id: learn those first
		}
		var chains []string
		for _, r := range rules {
			if !ours(r) {
				continue
			}
			iptables(append([]string{"-t", table, "-D"}, r[1:]...)...)
			for _, c := range []string{r[1], r[len(r)-1]} {
				if ofOneAlloc(c) && !slices.Contains(chains, c) {
					chains = append(chains, c)
				}
			}
		}
		for _, c := range chains {
			iptables("-t", table, "-F", c)
			iptables("-t", table, "-X", c)
		}
	}
	if !strings.Contains(string(iptables("-S")), "-A NOMAD-ADMIN") {
		iptables("-D", "CNI-FORWARD", "-m", "comment", "--comment", "CNI firewall plugin admin overrides", "-j", "NOMAD-ADMIN")
		iptables("-X", "NOMAD-ADMIN")
	}
	for id := range allocs {
		unmount(filepath.Join(netnsDir, id))
		os.Remove(filepath.Join(netnsDir, id))
	}
	exec.Command("ip", "link", "delete", bridge, "type", "bridge").Run()
}

// ofOneAlloc tells the CNI plugins' chains of one allocation from their shared ones.
func ofOneAlloc(chain string) bool {
	rest, ok := strings.CutPrefix(chain, "CNI-")
	rest = strings.TrimPrefix(rest, "DN-")
	return ok && len(rest) > 16 && strings.Trim(rest, "0123456789abcdef") == ""
}

// words splits a line as iptables prints it, where only comments are quoted.
func words(line string) (out []string) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		word, rest, _ := strings.Cut(line, " ")
		if q, err := strconv.QuotedPrefix(line); err == nil {
			word, _ = strconv.Unquote(q)
			rest = line[len(q):]
		}
		out, line = append(out, word), rest
	}
	return out
}
