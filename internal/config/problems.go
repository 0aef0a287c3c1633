package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// problems collects what is wrong with a file, each with its place.
type problems struct {
	body  hcl.Body // nil: there is no file
	diags hcl.Diagnostics
}

// at reports a problem of a setting, named as "block.attribute"; "" is the file.
func (p *problems) at(setting, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if setting != "" {
		text = setting + ": " + text
	}
	body := p.body
	block, name, nested := strings.Cut(setting, ".")
	if !nested {
		name = block
	} else if b, ok := body.(*hclsyntax.Body); ok {
		for _, b := range b.Blocks {
			if b.Type == block {
				body = b.Body
				break
			}
		}
	}
	p.add(text, place(body, name))
}

// scope is one block of several of its kind.
type scope struct {
	*problems
	title string // as texts call it
	body  hcl.Body
}

// in reports the problems of a block by the scope that it returns.
func (p *problems) in(block hcl.Body, kind, label string) scope {
	return scope{p, fmt.Sprintf("%s %q: ", kind, label), block}
}

// at reports a problem of a setting of the block; "" is the block.
func (s scope) at(setting, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if setting != "" {
		text = setting + ": " + text
	}
	s.add(s.title+text, place(s.body, setting))
}

// err reports an error, or each of several joined, whose text begins with the setting
// that it is of, if it is of one.
func (s scope) err(err error) {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range all.Unwrap() {
			s.err(err)
		}
		return
	}
	if err == nil {
		return
	}
	setting, _, _ := strings.Cut(err.Error(), ":")
	setting, _, _ = strings.Cut(setting, "[")
	s.add(s.title+err.Error(), place(s.body, setting))
}

func (p *problems) add(text string, where *hcl.Range) {
	p.diags = append(p.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Invalid setting", Detail: text, Subject: where})
}

// place finds a setting in its block, or else where the block begins.
func place(body hcl.Body, setting string) *hcl.Range {
	if body == nil {
		return nil
	}
	r := body.MissingItemRange()
	if b, ok := body.(*hclsyntax.Body); ok {
		if a, ok := b.Attributes[setting]; ok {
			r = a.Expr.Range()
		}
	}
	return &r
}

// merge adds what is wrong with the values to what is wrong with the shape, but for
// values that are missing because their shape is wrong; by their places in the file.
func merge(shape, values hcl.Diagnostics) hcl.Diagnostics {
	all := slices.Clone(shape)
	for _, v := range values {
		if !slices.ContainsFunc(shape, func(s *hcl.Diagnostic) bool { return start(s) == start(v) }) {
			all = append(all, v)
		}
	}
	slices.SortStableFunc(all, func(a, b *hcl.Diagnostic) int { return start(a) - start(b) })
	return all
}

// start is where in the file a problem is.
func start(d *hcl.Diagnostic) int {
	if d.Subject == nil {
		return 0
	}
	return d.Subject.Start.Byte
}

// Invalid is returned for a file with problems.
type Invalid struct {
	Problems []string // each with its place, on one line
	text     string   // all, with the lines of the file
}

func (e *Invalid) Error() string { return "the config is not valid:\n" + e.text }

func explain(p *hclparse.Parser, diags hcl.Diagnostics) error {
	e := &Invalid{}
	for _, d := range diags {
		line := d.Summary + ": " + d.Detail
		if d.Subject != nil {
			line = d.Subject.String() + ": " + line
		}
		e.Problems = append(e.Problems, line)
	}
	var out strings.Builder
	if err := hcl.NewDiagnosticTextWriter(&out, p.Files(), 0, false).WriteDiagnostics(diags); err != nil {
		e.text = strings.Join(e.Problems, "\n")
		return e
	}
	e.text = strings.TrimRight(out.String(), "\n")
	return e
}

// duration parses a setting that may not be below least.
func (p *problems) duration(setting string, into *time.Duration, from *duration, least time.Duration) {
	if from == nil {
		return
	}
	d, err := time.ParseDuration(string(*from))
	if err != nil || d < least {
		p.at(setting, "want a duration like \"30s\"%s, got %q", map[bool]string{true: ", more than 0"}[least > 0], *from)
		return
	}
	*into = d
}

// count takes a setting that may not be negative.
func (p *problems) count(setting string, into *int, from *int) {
	switch {
	case from == nil:
	case *from < 0:
		p.at(setting, "want 0 for no limit, or more, got %d", *from)
	default:
		*into = *from
	}
}

// size parses a setting of least to most bytes; want says in words what it may be.
func (p *problems) size(setting, want string, into *int64, from *size, least, most uint64) {
	if from == nil {
		return
	}
	n, err := humanize.ParseBytes(string(*from))
	if err != nil || n < least || n > most {
		p.at(setting, "want %s, got %q", want, *from)
		return
	}
	*into = int64(n)
}

// networks parses a list of networks, and reports each that is none, or the whole world.
func networks(list []string, bad func(text string)) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Bits() == 0 {
			bad(text)
			continue
		}
		out = append(out, p.Masked())
	}
	return out
}

// hostPort wants an address to listen on.
func (p *problems) hostPort(setting, addr string) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		p.at(setting, "want HOST:PORT like \"127.0.0.1:8080\", got %q", addr)
	}
}

// The texts of an HCL file that stand for something else.
type (
	duration string // for time.ParseDuration
	size     string // for humanize.ParseBytes
)
