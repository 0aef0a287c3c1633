package config

import (
	"crypto/tls"
	"net/url"
	"slices"
	"strings"

	"openclaw-sandbox/internal/front"
)

type tlsBlock struct {
	CertFile   *string `hcl:"cert_file" default:"" doc:"the certificate with its chain, PEM: a wildcard of *.<domain> and <domain>. Required without acme"`
	KeyFile    *string `hcl:"key_file" default:"" doc:"its key, PEM. Required without acme"`
	MinVersion *string `hcl:"min_version" default:"1.2" doc:"of TLS; also with acme" want:"\"1.2\" or \"1.3\""`
}

type acmeBlock struct {
	Domains      []string `hcl:"domains,optional" default:"[]" doc:"hosts that get a certificate; empty: <domain> and each <user>.<domain>" want:"names of the domain or below it, no wildcards"`
	Email        *string  `hcl:"email" default:"" doc:"for the server's warnings"`
	CacheDir     *string  `hcl:"cache_dir" doc:"where certificates are kept; must outlive restarts, and routers may share it"`
	DirectoryURL *string  `hcl:"directory_url" default:"" doc:"of the ACME server; empty: Let's Encrypt" want:"an https address"`
	CAFile       *string  `hcl:"ca_file" default:"" doc:"whose certificate that server has, if not one of the system's"`
	NewPerHour   *int     `hcl:"new_per_hour" default:"10" doc:"certificates for hosts that had none, since anybody may make up hosts. 0: no limit" want:"0 or more"`
}

// newPerHour is the default of acme.new_per_hour. Let's Encrypt gives 50 a week for
// one registered domain.
const newPerHour = 10

// applyFront reads how clients come in: TLS, and the proxies before it.
func (f *file) applyFront(c *Config, bad *problems) {
	c.TrustedProxies = networks(f.TrustedProxies, func(text string) {
		bad.at("trusted_proxies", "want networks like \"10.0.0.0/8\", and not the whole world, got %q", text)
	})
	f.applyTLS(c, bad)
	set(&c.RedirectListen, f.RedirectListen)
	if c.RedirectListen != "" {
		bad.hostPort("redirect_listen", c.RedirectListen)
	}
	if c.RedirectListen != "" && c.TLS == nil {
		bad.at("redirect_listen", "there is no https to redirect to; add tls { … } or acme { … }")
	}
	if c.TLS == nil {
		return
	}
	if f.Scheme == nil {
		c.Scheme = "https"
	}
	if c.Scheme == "http" {
		bad.at("scheme", "with tls or acme browsers see \"https\", got %q", c.Scheme)
	}
}

func (f *file) applyTLS(c *Config, bad *problems) {
	if f.TLS == nil && f.ACME == nil {
		return
	}
	t := front.TLS{MinVersion: tls.VersionTLS12}
	if b := f.TLS; b != nil {
		set(&t.CertFile, b.CertFile)
		set(&t.KeyFile, b.KeyFile)
		version := "1.2"
		set(&version, b.MinVersion)
		switch version {
		case "1.2":
		case "1.3":
			t.MinVersion = tls.VersionTLS13
		default:
			bad.at("tls.min_version", "want \"1.2\" or \"1.3\", got %q", version)
		}
	}
	files := t.CertFile != "" || t.KeyFile != ""
	switch {
	case f.ACME != nil && files:
		bad.at("tls.cert_file", "certificates come from files or by acme, not both")
	case f.ACME != nil:
		t.ACME = f.ACME.apply(c, bad)
	case t.CertFile == "" || t.KeyFile == "":
		bad.at("tls.cert_file", "want cert_file and key_file, both PEM, or a block acme")
	}
	c.TLS = &t
}

func (b *acmeBlock) apply(c *Config, bad *problems) *front.ACME {
	a := front.ACME{Domains: b.Domains, NewPerHour: newPerHour}
	set(&a.Email, b.Email)
	set(&a.CacheDir, b.CacheDir)
	set(&a.DirectoryURL, b.DirectoryURL)
	set(&a.CAFile, b.CAFile)
	bad.count("acme.new_per_hour", &a.NewPerHour, b.NewPerHour)
	for _, d := range a.Domains {
		if d != c.Domain && !strings.HasSuffix(d, "."+c.Domain) {
			bad.at("acme.domains", "want names of the domain %q or below it, and no wildcards, got %q", c.Domain, d)
		}
	}
	if slices.ContainsFunc(a.Domains, func(d string) bool { return strings.Contains(d, "*") }) {
		bad.at("acme.domains", "a wildcard needs a challenge by DNS: use a tool that does it, and tls { cert_file, key_file }")
	}
	if a.CacheDir == "" {
		bad.at("acme.cache_dir", "want a folder that outlives restarts; ACME servers give few certificates a week")
	}
	if u, err := url.Parse(a.DirectoryURL); a.DirectoryURL != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		bad.at("acme.directory_url", "want an https address, got %q", a.DirectoryURL)
	}
	return &a
}
