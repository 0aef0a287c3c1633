package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// problems collects what is wrong with a file, each with its place.
type problems struct {
	body  hcl.Body
	diags hcl.Diagnostics
}

// at reports a problem of a setting, named as "block.attribute"; "" is the file.
func (p *problems) at(setting, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if setting != "" {
		text = setting + ": " + text
	}
	p.add(text, p.place(setting))
}

// in reports a problem of a block.
func (p *problems) in(block hcl.Body, text string) {
	where := block.MissingItemRange()
	p.add(text, &where)
}

func (p *problems) add(text string, where *hcl.Range) {
	p.diags = append(p.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Invalid setting", Detail: text, Subject: where})
}

// place finds a setting in the file; nil if it is not there.
func (p *problems) place(setting string) *hcl.Range {
	body, ok := p.body.(*hclsyntax.Body)
	if !ok {
		return nil
	}
	block, name, nested := strings.Cut(setting, ".")
	if !nested {
		name = block
	}
	for _, b := range body.Blocks {
		if nested && b.Type == block {
			body = b.Body
			break
		}
	}
	if a, ok := body.Attributes[name]; ok {
		r := a.Expr.Range()
		return &r
	}
	return nil
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
func (p *problems) duration(setting string, into *time.Duration, from *string, least time.Duration) {
	if from == nil {
		return
	}
	d, err := time.ParseDuration(*from)
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
