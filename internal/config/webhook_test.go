package config

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"openclaw-sandbox/internal/webhook"
)

const anybody = "identity \"dev\" {}\n"

func TestWebhooks(t *testing.T) {
	dir := t.TempDir()
	master := filepath.Join(dir, "master")
	if err := os.WriteFile(master, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse([]byte(anybody+fmt.Sprintf(`
webhook "telegram" {
  path         = "/telegram-webhook"
  signature    = "telegram"
  secret_files = [%q]
  port         = 8787
}
webhook "slack" {
  path        = "/slack/"
  methods     = ["POST", "PUT"]
  signature   = "slack"
  secrets_dir = %q
  max_body    = 1000
  per_minute  = 7
  hold        = "0s"
}
`, master, dir)), "r.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Webhooks) != 2 {
		t.Fatalf("%d webhooks", len(c.Webhooks))
	}
	a, b := c.Webhooks[0], c.Webhooks[1]
	if a.Name != "telegram" || strings.Join(a.Methods, " ") != "POST" || a.MaxBody != 1<<20 || a.PerMinute != 120 || a.Hold != 25*time.Second || a.Port != 8787 {
		t.Errorf("by default: %+v", a)
	}
	if _, ok := a.Secrets.(*webhook.Derived); !ok {
		t.Errorf("its secrets are %T", a.Secrets)
	}
	if len(b.Methods) != 2 || b.MaxBody != 1000 || b.PerMinute != 7 || b.Hold != 0 || b.Port != 0 || b.Secrets != webhook.Folder(dir) {
		t.Errorf("as set: %+v", b)
	}

	const rest = "signature = \"signed\"\nsecret_files = [%q]\n"
	for name, c := range map[string]struct{ text, mention string }{
		"no secrets":        {`webhook "x" { path = "/x", signature = "signed" }`, "r.hcl line 2"},
		"unknown":           {"webhook \"x\" {\npath = \"/x\"\nsignatur = \"y\"\n}", "signatur"},
		"both":              {"webhook \"x\" {\npath = \"/x\"\n" + rest + "secrets_dir = \"/tmp\"\n}", "one of them"},
		"no such file":      {"webhook \"x\" {\npath = \"/x\"\nsignature = \"signed\"\nsecret_files = [\"/no/such\"]\n}", "secret_files"},
		"no such folder":    {"webhook \"x\" {\npath = \"/x\"\nsignature = \"line\"\nsecrets_dir = \"/no/such\"\n}", "secrets_dir"},
		"derived for Slack": {"webhook \"x\" {\npath = \"/x\"\nsignature = \"slack\"\nsecret_files = [%q]\n}", "the channel's own"},
		"the API":           {"webhook \"x\" {\npath = \"/api/chat\"\n" + rest + "}", "the router's own"},
		"hold":              {"webhook \"x\" {\npath = \"/x\"\n" + rest + "hold = \"soon\"\n}", "hold"},
		"two of a path":     {"webhook \"x\" {\npath = \"/x\"\n" + rest + "}\nwebhook \"y\" {\npath = \"/x\"\n" + rest + "}", "already"},
	} {
		text := strings.ReplaceAll(c.text, "%q", fmt.Sprintf("%q", master))
		if _, err := Parse([]byte(anybody+text), "r.hcl"); err == nil || !strings.Contains(err.Error(), c.mention) {
			t.Errorf("%s: %v, want a mention of %q", name, err, c.mention)
		}
	}
}

// The example's block, which is a comment since it needs files, says the defaults.
func TestExampleWebhook(t *testing.T) {
	example, err := os.ReadFile("../../docs/router.example.hcl")
	if err != nil {
		t.Fatal(err)
	}
	_, block, begins := strings.Cut(string(example), "# webhook \"slack\" {")
	block, _, ends := strings.Cut(block, "\n# }\n")
	if !begins || !ends {
		t.Fatal("the example has no webhook")
	}
	dir := t.TempDir()
	text := "webhook \"slack\" {" + strings.ReplaceAll(block, "\n#", "\n") + "\n}\n"
	text = strings.Replace(text, `"/etc/openclaw/slack"`, fmt.Sprintf("%q", dir), 1)
	for _, attribute := range []string{"path", "methods", "signature", "secrets_dir", "secret_files", "max_body", "per_minute", "hold", "port"} {
		if !strings.Contains(text, "   "+attribute+" ") {
			t.Errorf("the example lacks %s", attribute)
		}
	}
	full, err := Parse([]byte(anybody+text), "r.hcl")
	if err != nil {
		t.Fatal(err)
	}
	least, err := Parse([]byte(anybody+fmt.Sprintf("webhook \"slack\" {\npath = \"/slack/events\"\nsignature = \"slack\"\nsecrets_dir = %q\n}", dir)), "r.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(least.Webhooks, full.Webhooks); d != "" {
		t.Errorf("the example differs from the defaults:\n%s", d)
	}
}
