package config

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/hcl/v2"

	"openclaw-sandbox/internal/webhook"
)

type webhookBlock struct {
	Name        string   `hcl:"name,label"`
	Path        string   `hcl:"path"`
	Methods     []string `hcl:"methods,optional"`
	Signature   string   `hcl:"signature"`
	SecretFiles []string `hcl:"secret_files,optional"`
	SecretsDir  string   `hcl:"secrets_dir,optional"`
	MaxBody     *int64   `hcl:"max_body"`
	PerMinute   *int     `hcl:"per_minute"`
	Hold        *string  `hcl:"hold"`
	Port        *int     `hcl:"port"`
	Body        hcl.Body `hcl:",body"`
}

func (f *file) applyWebhooks(c *Config, bad *problems) {
	names, paths := map[string]bool{}, map[string]bool{}
	for _, b := range f.Webhooks {
		h, err := b.hook()
		switch {
		case err != nil:
			bad.in(b.Body, fmt.Sprintf("webhook %q: %v", b.Name, err))
		case names[h.Name], paths[h.Path]:
			bad.in(b.Body, fmt.Sprintf("webhook %q: there is one of that name or path already", b.Name))
		}
		names[h.Name], paths[h.Path] = true, true
		c.Webhooks = append(c.Webhooks, h)
	}
}

func (b *webhookBlock) hook() (_ webhook.Hook, err error) {
	h := webhook.Hook{Name: b.Name, Path: b.Path, Methods: b.Methods, Signature: webhook.Signature(b.Signature), MaxBody: webhook.DefaultMaxBody, PerMinute: webhook.DefaultPerMinute}
	h.Hold = h.Signature.Hold()
	if len(h.Methods) == 0 {
		h.Methods = []string{http.MethodPost}
	}
	set(&h.MaxBody, b.MaxBody)
	set(&h.PerMinute, b.PerMinute)
	set(&h.Port, b.Port)
	if b.Hold != nil {
		if h.Hold, err = time.ParseDuration(*b.Hold); err != nil {
			return h, fmt.Errorf("hold: want a duration like \"2s\", got %q", *b.Hold)
		}
	}
	switch {
	case (len(b.SecretFiles) > 0) == (b.SecretsDir != ""):
		return h, errors.New("want secret_files, with a master secret of `openssl rand -base64 32`, or secrets_dir, with a file per user; one of them")
	case b.SecretsDir != "":
		if info, err := os.Stat(b.SecretsDir); err != nil || !info.IsDir() {
			return h, fmt.Errorf("secrets_dir: want a folder with a file per user, got %q", b.SecretsDir)
		}
		h.Secrets = webhook.Folder(b.SecretsDir)
	default:
		masters, err := webhook.ReadMasters(b.SecretFiles...)
		if err != nil {
			return h, fmt.Errorf("secret_files: %w", err)
		}
		h.Secrets = masters
	}
	return h, h.Check()
}
