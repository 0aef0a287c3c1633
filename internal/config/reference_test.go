package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"openclaw-sandbox/test/bench/table"
)

// section is one block of the HCL shape.
type section struct {
	name     string // "wake"; "" is the file itself
	doc      string
	settings []setting
	blocks   []section
}

// setting is one attribute, or a block's label.
type setting struct {
	name, kind, doc, want string
	fallback              string // its default, as HCL; in parentheses if that depends
	required, label       bool
	kinds                 []string // of identity that have it; nil: all
}

// read makes sections of a struct's tags, and tells t which lack one.
func read(t *testing.T, name, doc string, shape reflect.Type) section {
	s := section{name: name, doc: doc}
	for f := range shape.Fields() {
		tag, option, _ := strings.Cut(f.Tag.Get("hcl"), ",")
		if option == "body" {
			continue
		}
		doc := f.Tag.Get("doc")
		if doc == "" || tag == "" {
			t.Errorf("%s.%s has no tag hcl or doc", shape, f.Name)
		}
		kind := f.Type
		if kind.Kind() == reflect.Pointer || option == "block" && kind.Kind() == reflect.Slice {
			kind = kind.Elem()
		}
		if option == "block" {
			s.blocks = append(s.blocks, read(t, tag, doc, kind))
			continue
		}
		fallback, ok := f.Tag.Lookup("default")
		v := setting{name: tag, kind: kinded(kind), doc: doc, want: f.Tag.Get("want"), fallback: fallback, required: !ok, label: option == "label"}
		if of := f.Tag.Get("kinds"); of != "" {
			v.kinds = strings.Fields(of)
		}
		if ok && kind.Kind() == reflect.String && !strings.HasPrefix(fallback, "(") {
			v.fallback = fmt.Sprintf("%q", fallback)
		}
		s.settings = append(s.settings, v)
	}
	return s
}

func kinded(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "number"
	case reflect.Slice:
		return "list of strings"
	case reflect.Map:
		return "map of strings"
	}
	return t.Name()
}

func reference(t *testing.T) section { return read(t, "", "", reflect.TypeFor[file]()) }

// all yields a section and those in it, each with its title.
func (s section) all(above string, yield func(title string, s section)) {
	title := strings.TrimSpace(above + " " + s.name)
	for _, v := range s.settings {
		if v.label {
			title += fmt.Sprintf(" %q", strings.ToUpper(v.name))
		}
	}
	yield(title, s)
	for _, b := range s.blocks {
		b.all(title, yield)
	}
}

func (s section) markdown(title string) string {
	out := "### At the top\n\n"
	if title != "" {
		out = fmt.Sprintf("### `%s`\n\n%s\n\n", title, s.doc)
	}
	out += "| setting | type | default | | may be |\n|---|---|---|---|---|\n"
	for _, v := range s.settings {
		name, fallback, of := "`"+v.name+"`", "`"+v.fallback+"`", ""
		switch {
		case v.label:
			name, fallback = "label `"+strings.ToUpper(v.name)+"`", "required"
		case v.required:
			fallback = "required"
		case strings.HasPrefix(v.fallback, "("):
			fallback = strings.Trim(v.fallback, "()")
		}
		if v.kinds != nil {
			of = "*" + strings.Join(v.kinds, ", ") + ":* "
		}
		out += fmt.Sprintf("| %s | %s | %s | %s%s | %s |\n", name, v.kind, fallback, of, escape(v.doc), escape(v.want))
	}
	return out + "\n"
}

// escape lets a table's cell have what Markdown would take for something else.
func escape(text string) string {
	return strings.NewReplacer("|", "\\|", "<", "\\<", "*", "\\*").Replace(text)
}

// docs/router-config.md lists every setting of the router, as the code has it.
// WRITE_DOCS=1 writes the list anew.
func TestReference(t *testing.T) {
	var list string
	reference(t).all("", func(title string, s section) { list += s.markdown(title) })
	const name = "../../docs/router-config.md"
	if os.Getenv("WRITE_DOCS") != "" {
		if err := table.Replace(name, "settings", list); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "<!-- settings -->\n"+list+"<!-- /settings -->") {
		t.Errorf("docs/router-config.md is not as the code: run WRITE_DOCS=1 go test -run TestReference ./internal/config; want\n%s", list)
	}
}

// The example names every setting, in its block, be it in a comment.
func TestExampleNamesEverySetting(t *testing.T) {
	text, err := os.ReadFile("../../docs/router.example.hcl")
	if err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile(`(?m)^# ?`).ReplaceAllString(string(text), "")
	reference(t).all("", func(title string, s section) {
		in := plain
		if s.name != "" {
			blocks := regexp.MustCompile(`(?ms)^ *`+s.name+`( "[^"]*")? \{.*?^ *\}`).FindAllString(plain, -1)
			in = strings.Join(blocks, "\n")
		}
		for _, v := range s.settings {
			if !v.label && !regexp.MustCompile(`(?m)^ *`+v.name+` += `).MatchString(in) {
				t.Errorf("router.example.hcl has no %s %s", title, v.name)
			}
		}
	})
}

// settled are blocks that say only what they must, by title; with what else they need.
func settled(t *testing.T) map[string]struct{ kind, must, beside string } {
	key, _ := files(t)
	dir := t.TempDir()
	const dev = "identity \"dev\" {}\n"
	session := fmt.Sprintf("session { key_files = [%q] }\n", key)
	const token = "\n sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n"
	return map[string]struct{ kind, must, beside string }{
		"tls":               {"tls", fmt.Sprintf("cert_file = %q\nkey_file = %q\n", key, key), dev},
		"acme":              {"acme", "cache_dir = \"/x\"\n", dev},
		"share":             {`share "team"`, "users = [\"alice\"]\n", dev},
		"webhook":           {`webhook "x"`, fmt.Sprintf("path = \"/x\"\nsignature = \"slack\"\nsecrets_dir = %q\n", dir), dev},
		"session":           {"session", fmt.Sprintf("key_files = [%q]\n", key), "identity \"oidc\" {\n issuer = \"https://a.test\"\n client_id = \"x\"\n}\n"},
		"token":             {`token "alice"`, token, ""},
		`identity "dev"`:    {`identity "dev"`, "", ""},
		`identity "token"`:  {`identity "token"`, "token \"alice\" {" + token + "}\n", ""},
		`identity "api"`:    {`identity "api"`, "", ""},
		`identity "oidc"`:   {`identity "oidc"`, "issuer = \"https://a.test\"\nclient_id = \"x\"\n", session},
		`identity "jwt"`:    {`identity "jwt"`, "issuer = \"https://a.test\"\njwks_url = \"https://a.test/\"\naudience = \"x\"\n", ""},
		`identity "header"`: {`identity "header"`, "header = \"X-User\"\nnetworks = [\"10.0.0.2/32\"]\n", ""},
	}
}

// probe is a file that says only what it must of a block, and besides one setting.
type probe func(extra string) (Config, error)

// probes calls f with each setting that is no label, and how to try it.
func probes(t *testing.T, f func(title string, v setting, must string, try probe)) {
	must := settled(t)
	reference(t).all("", func(title string, s section) {
		kinds := []string{s.name}
		if s.name == "identity" {
			kinds = nil
			for _, k := range []string{"dev", "token", "api", "oidc", "jwt", "header"} {
				kinds = append(kinds, fmt.Sprintf("identity %q", k))
			}
		}
		for _, kind := range kinds {
			m, known := must[kind]
			if !known {
				m.kind, m.beside = kind, "identity \"dev\" {}\n"
			}
			try := func(extra string) (Config, error) {
				body := m.must + extra + "\n"
				switch {
				case kind == "token":
					body = "identity \"token\" {\n" + m.kind + " {\n" + body + "}\n}\n"
				case kind != "":
					body = m.kind + " {\n" + body + "}\n"
				}
				return Parse([]byte(body+m.beside), "r.hcl")
			}
			if _, err := try(""); err != nil {
				t.Errorf("%s as it must be: %v", title, err)
			}
			for _, v := range s.settings {
				if !v.label && (v.kinds == nil || slices.Contains(v.kinds, strings.Trim(strings.TrimPrefix(kind, "identity "), `"`))) {
					f(kind, v, m.must, try)
				}
			}
		}
	})
}

// What the reference calls a default is what leaving the setting out means.
func TestReferenceDefaults(t *testing.T) {
	n := 0
	probes(t, func(title string, v setting, must string, try probe) {
		if v.required || strings.HasPrefix(v.fallback, "(") || strings.Contains(must, v.name+" = ") {
			return
		}
		without, err := try("")
		if err != nil {
			return // reported
		}
		n++
		with, err := try(v.name + " = " + v.fallback)
		if err != nil {
			t.Errorf("%s: %s = %s: %v", title, v.name, v.fallback, err)
		}
		if d := cmp.Diff(without, with, cmpopts.EquateEmpty(), cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
			t.Errorf("%s: %s = %s is not the default:\n%s", title, v.name, v.fallback, d)
		}
	})
	if n < 60 {
		t.Errorf("only %d defaults were compared", n)
	}
}

// outside are values that leave what the reference says may be.
var outside = []struct {
	want   *regexp.Regexp
	values []string
}{
	{regexp.MustCompile(`^[01]s? or more$`), []string{"-1", `"-1s"`}},
	{regexp.MustCompile(`^1 or more$`), []string{"0"}},
	{regexp.MustCompile(`^more than 0s`), []string{`"0s"`}},
	{regexp.MustCompile(`less than 5s$`), []string{`"5s"`}},
	{regexp.MustCompile(`at most 30s$`), []string{`"31s"`}},
	{regexp.MustCompile(`^1 to 128$`), []string{"0", "129"}},
	{regexp.MustCompile(`^0 to 65535$`), []string{"-1", "65536"}},
	{regexp.MustCompile(`^"[^ ]+(,.*)? or "`), []string{`"x"`}},
	{regexp.MustCompile(`^networks`), []string{`["10.0.0.1"]`, `["0.0.0.0/0"]`}},
	{regexp.MustCompile(`^HOST:PORT`), []string{`"x"`}},
	{regexp.MustCompile(`https address`), []string{`"http://a.test/"`}},
	{regexp.MustCompile(`^a user id|^user ids`), []string{`"A"`, `["A"]`}},
	{regexp.MustCompile(`slash`), []string{`"x"`}},
	{regexp.MustCompile(`not loopback`), []string{`"127.0.0.1"`}},
}

// fits tells whether a value is of a kind of settings.
func fits(kind, value string) bool {
	switch value[0] {
	case '[':
		return kind == "list of strings"
	case '"':
		return kind != "number" && kind != "list of strings"
	}
	return kind == "number"
}

// A value outside of what the reference allows is a problem of that setting.
func TestReferenceRanges(t *testing.T) {
	n := 0
	probes(t, func(title string, v setting, must string, try probe) {
		if strings.Contains(must, v.name+" = ") {
			return // twice is an error of another kind
		}
		for _, o := range outside {
			if !o.want.MatchString(v.want) {
				continue
			}
			for _, value := range o.values {
				if !fits(v.kind, value) {
					continue
				}
				n++
				if _, err := try(v.name + " = " + value); err == nil || !strings.Contains(err.Error(), v.name) {
					t.Errorf("%s: %s = %s, though %s: %v", title, v.name, value, v.want, err)
				}
			}
		}
	})
	if n < 45 {
		t.Errorf("only %d values were tried", n)
	}
}
