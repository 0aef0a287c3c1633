package driver

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
)

// leaf is one setting of a spec.
type leaf struct {
	name     string // "snapshot.interval"
	fallback string // its default, as HCL; "" if it is required
}

// leaves yields the settings of a spec, by their names.
func leaves(s *hclspec.Spec, name, fallback string, yield func(leaf)) {
	switch b := s.Block.(type) {
	case *hclspec.Spec_Object:
		for k, v := range b.Object.Attributes {
			leaves(v, strings.TrimPrefix(name+"."+k, "."), "", yield)
		}
	case *hclspec.Spec_Default:
		leaves(b.Default.Primary, name, b.Default.Default.GetLiteral().GetValue(), yield)
	case *hclspec.Spec_BlockValue:
		leaves(b.BlockValue.Nested, name, "", yield)
	default:
		yield(leaf{name, fallback})
	}
}

// documented is docs/configuration.md from a headline on.
func documented(t *testing.T, headline string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), headline)
	if !ok {
		t.Fatalf("there is no %q", headline)
	}
	return section
}

// written collects what a text says of the settings of a block, by their names.
func written(text string, b *hclsyntax.Body, name string, into map[string]string) {
	for k, a := range b.Attributes {
		into[name+k] = string(a.Expr.Range().SliceBytes([]byte(text)))
	}
	for _, n := range b.Blocks {
		if len(n.Body.Attributes) == 0 {
			into[name+n.Type] = "" // as of free names, like encryption.keys
		}
		written(text, n.Body, name+n.Type+".", into)
	}
}

// What docs/configuration.md says of the plugin's config is all that there is, with its
// defaults; where the store is, is an example.
func TestPluginConfigReference(t *testing.T) {
	_, text, _ := strings.Cut(documented(t, "## The driver: `plugin \"sandbox\"`"), "```hcl\n")
	text, _, _ = strings.Cut(text, "\n```\n")
	file, diags := hclsyntax.ParseConfig([]byte(text), "configuration.md", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	said := map[string]string{}
	written(text, file.Body.(*hclsyntax.Body).Blocks[0].Body.Blocks[0].Body, "", said)
	leaves(configSpec, "", "", func(l leaf) {
		got, ok := said[l.name]
		if !ok {
			t.Errorf("configuration.md does not say %s", l.name)
		}
		delete(said, l.name)
		if l.fallback != "" && l.fallback != got && l.name != "store.endpoint" {
			t.Errorf("configuration.md has %s = %s, its default is %s", l.name, got, l.fallback)
		}
	})
	for name := range said {
		t.Errorf("configuration.md has %s, which is no setting", name)
	}
}

// Likewise of the task's config, which is a table.
func TestTaskConfigReference(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| (.*?) \| (.*?) \|.*\|$`).FindAllStringSubmatch(documented(t, "## The task: `config` in the job"), -1)
	leaves(taskConfigSpec, "", "", func(l leaf) {
		block, name, nested := strings.Cut(l.name, ".")
		if !nested {
			block, name = "", l.name
		}
		for _, r := range rows {
			cell := strings.Trim(strings.ReplaceAll(r[1], "`", ""), " }")
			if in, rest, is := strings.Cut(cell, " { "); is != nested || is && in != block {
				continue
			} else if is {
				cell = rest
			}
			for _, n := range strings.Split(cell, ", ") {
				if n == name {
					if want := strings.Trim(l.fallback, `"[]`); !strings.Contains(r[2], want) {
						t.Errorf("configuration.md has %s for %s, its default is %s", r[2], l.name, l.fallback)
					}
					return
				}
			}
		}
		t.Errorf("configuration.md does not say %s", l.name)
	})
}
