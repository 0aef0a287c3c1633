package config

import (
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/hcl/v2"

	"openclaw-sandbox/internal/webhook"
)

type webhookBlock struct {
	Name        string    `hcl:"name,label" doc:"secrets are made of it, so a new name is new secrets" want:"1 to 40 lower-case letters, digits, hyphens"`
	Path        string    `hcl:"path,optional" doc:"below a sandbox's address: exactly this, or all below it if it ends in /; the longest that fits decides" want:"not below /_sandbox/, /api/, /u/"`
	Methods     []string  `hcl:"methods,optional" default:"[\"POST\"]" doc:"requests with other methods need a login" want:"in capitals"`
	Signature   string    `hcl:"signature,optional" doc:"how requests are signed" want:"\"telegram\", \"slack\", \"line\" or \"signed\""`
	SecretFiles []string  `hcl:"secret_files,optional" default:"[]" doc:"master secrets of openssl rand -base64 32, for telegram and signed, the current one first; the same for all routers. Read at the start"`
	SecretsDir  string    `hcl:"secrets_dir,optional" default:"" doc:"or a folder with a file per user, named like the user, with the channel's secret. Read at each request" want:"one of secret_files and secrets_dir"`
	MaxBody     *int64    `hcl:"max_body" default:"1048576" doc:"bytes; the router reads a body before it passes it on" want:"1 or more"`
	PerMinute   *int      `hcl:"per_minute" default:"120" doc:"of one user, that this router lets through; beyond, 429" want:"1 or more"`
	Hold        *duration `hcl:"hold" default:"(2s with slack, 1s with line, else 25s)" doc:"how long a request waits for a start; keep it below the sender's patience" want:"0s or more"`
	Port        *int      `hcl:"port" default:"0" doc:"a port of the sandbox beside the gateway's own (0), which the job's webhook_ports opens" want:"0 to 65535"`
	Body        hcl.Body  `hcl:",body"`
}

func (f *file) applyWebhooks(c *Config, bad *problems) {
	names, paths := map[string]bool{}, map[string]bool{}
	for _, b := range f.Webhooks {
		bad := bad.in(b.Body, "webhook", b.Name)
		h := b.hook(bad)
		if names[h.Name] || paths[h.Path] {
			bad.at("", "there is one of that name or path already")
		}
		names[h.Name], paths[h.Path] = true, true
		c.Webhooks = append(c.Webhooks, h)
	}
}

func (b *webhookBlock) hook(bad scope) webhook.Hook {
	h := webhook.Hook{Name: b.Name, Path: b.Path, Methods: b.Methods, Signature: webhook.Signature(b.Signature), MaxBody: webhook.DefaultMaxBody, PerMinute: webhook.DefaultPerMinute}
	h.Hold = h.Signature.Hold()
	if len(h.Methods) == 0 {
		h.Methods = []string{http.MethodPost}
	}
	set(&h.MaxBody, b.MaxBody)
	set(&h.PerMinute, b.PerMinute)
	set(&h.Port, b.Port)
	if b.Hold != nil {
		var err error
		if h.Hold, err = time.ParseDuration(string(*b.Hold)); err != nil {
			bad.at("hold", "want a duration like \"2s\", got %q", *b.Hold)
		}
	}
	switch {
	case (len(b.SecretFiles) > 0) == (b.SecretsDir != ""):
		bad.at("", "want secret_files, with a master secret of `openssl rand -base64 32`, or secrets_dir, with a file per user; one of them")
	case b.SecretsDir != "":
		if info, err := os.Stat(b.SecretsDir); err != nil || !info.IsDir() {
			bad.at("secrets_dir", "want a folder with a file per user, got %q", b.SecretsDir)
		}
		h.Secrets = webhook.Folder(b.SecretsDir)
	default:
		masters, err := webhook.ReadMasters(b.SecretFiles...)
		if err != nil {
			bad.at("secret_files", "%v", err)
		}
		h.Secrets = masters
	}
	bad.err(h.Check())
	return h
}
