// Package egress says what a sandbox may reach over the network. Each sandbox
// has a namespace of its own on a bridge; nftables rules for that bridge keep
// sandboxes from each other, from the node, and from addresses that an operator
// denies. Replies to connections that came in are always let out.
package egress

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"text/template"
)

// Rules are the rules of one bridge.
type Rules struct {
	// Bridge is the interface's name.
	Bridge string
	// Allow are addresses of the node itself, as ip:port (TCP), that sandboxes
	// may connect to. Everything else of the node is closed to them.
	Allow []string
	// Deny are addresses and prefixes beyond the node that sandboxes may not reach.
	Deny []string
}

//go:embed rules.nft.tmpl
var rulesText string

var rulesTemplate = template.Must(template.New("rules").Parse(rulesText))

// bridgeName is what Linux allows as an interface's name, less what nft would
// read as syntax.
var bridgeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)

// table is the name of the rules' tables in nft.
func (r Rules) table() string {
	return "openclaw_sandbox_" + strings.NewReplacer("-", "_", ".", "_").Replace(r.Bridge)
}

// script is the rules as input of nft. It replaces what was there as a whole.
func (r Rules) script() (string, error) {
	if !bridgeName.MatchString(r.Bridge) {
		return "", fmt.Errorf("egress.bridge: %q is not an interface name", r.Bridge)
	}
	data := struct {
		Table, Bridge                string
		Allow4, Allow6, Deny4, Deny6 []string
	}{Table: r.table(), Bridge: r.Bridge}
	for _, s := range r.Allow {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return "", fmt.Errorf("egress.allow: %q is not ip:port", s)
		}
		element := fmt.Sprintf("%s . %d", a.Addr(), a.Port())
		if a.Addr().Is4() {
			data.Allow4 = append(data.Allow4, element)
		} else {
			data.Allow6 = append(data.Allow6, element)
		}
	}
	for _, s := range r.Deny {
		p, err := parsePrefix(s)
		if err != nil {
			return "", fmt.Errorf("egress.deny: %q is not an address or prefix", s)
		}
		if p.Addr().Is4() {
			data.Deny4 = append(data.Deny4, p.String())
		} else {
			data.Deny6 = append(data.Deny6, p.String())
		}
	}
	var out bytes.Buffer
	err := rulesTemplate.Execute(&out, data)
	return out.String(), err
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Prefix(a.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// Check returns an error that names the first setting that is not valid.
func (r Rules) Check() error {
	_, err := r.script()
	return err
}

// Apply puts the rules in force, in one transaction, in place of earlier ones of
// the same bridge. The bridge need not exist yet. It needs root and nft.
func (r Rules) Apply(ctx context.Context) error {
	text, err := r.script()
	if err != nil {
		return err
	}
	return nft(ctx, text)
}

// Remove takes the bridge's rules away.
func (r Rules) Remove(ctx context.Context) error {
	// Declaring a table first makes its deletion succeed when there is none.
	return nft(ctx, fmt.Sprintf("table inet %[1]s\ndelete table inet %[1]s\n", r.table()))
}

// IsolatePorts keeps the bridge's ports from each other: frames go between a
// port and the node only. It covers every port of the bridge, so a bridge for
// sandboxes should serve nothing else. It is called after a sandbox's port was
// made; without a bridge of that name it does nothing.
func (r Rules) IsolatePorts() error {
	ports, err := filepath.Glob(filepath.Join("/sys/class/net", r.Bridge, "brif", "*", "isolated"))
	if err != nil {
		return fmt.Errorf("isolate bridge ports: %w", err)
	}
	for _, p := range ports {
		// A port may go away meanwhile, with its sandbox.
		if err := os.WriteFile(p, []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
			return fmt.Errorf("isolate bridge ports: %w", err)
		}
	}
	return nil
}

func nft(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %.300s", err, out)
	}
	return nil
}
