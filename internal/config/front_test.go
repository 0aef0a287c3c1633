package config

import (
	"crypto/tls"
	"strings"
	"testing"
)

const entry = "identity \"dev\" {}\n"

func TestFront(t *testing.T) {
	c, err := Parse([]byte(entry+`
trusted_proxies = ["10.0.0.7/8", "fd00::/8"]
redirect_listen = "127.0.0.1:8081"
tls { min_version = "1.3" }
acme {
  cache_dir = "/var/lib/x"
  domains   = ["localhost", "alice.localhost"]
}
limits {
  max_body           = "64MiB"
  websockets_per_user = 0
}`), "r.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if c.Scheme != "https" || c.TLS.MinVersion != tls.VersionTLS13 || c.TLS.ACME.NewPerHour != newPerHour || len(c.TLS.ACME.Domains) != 2 || c.RedirectListen == "" {
		t.Errorf("scheme %s, tls %+v, acme %+v", c.Scheme, c.TLS, c.TLS.ACME)
	}
	if len(c.TrustedProxies) != 2 || c.TrustedProxies[0].String() != "10.0.0.0/8" {
		t.Errorf("proxies %v", c.TrustedProxies)
	}
	if c.Limits.MaxBody != 64<<20 || c.Limits.WebSockets != 0 || c.Limits.Burst != defaultLimits().Burst {
		t.Errorf("limits %+v", c.Limits)
	}
}

func TestFrontProblems(t *testing.T) {
	for text, want := range map[string]string{
		`trusted_proxies = ["10.0.0.1"]`:                                               "trusted_proxies",
		`trusted_proxies = ["0.0.0.0/0"]`:                                              "whole world",
		`tls { cert_file = "x" }`:                                                      "key_file",
		`tls { min_version = "1.1" }`:                                                  "min_version",
		"tls {\n cert_file = \"x\"\n key_file = \"y\"\n}\nscheme = \"http\"":           "scheme",
		"tls {\n cert_file = \"x\"\n key_file = \"y\"\n}\nacme { cache_dir = \"/x\" }": "not both",
		`acme {}`: "cache_dir",
		"acme {\n cache_dir = \"/x\"\n domains = [\"*.localhost\"]\n}":  "wildcard",
		"acme {\n cache_dir = \"/x\"\n domains = [\"evil.test\"]\n}":    "below it",
		"acme {\n cache_dir = \"/x\"\n directory_url = \"http://x\"\n}": "https",
		`redirect_listen = "127.0.0.1:80"`:                              "no https",
		"acme { cache_dir = \"/x\" }\nredirect_listen = \"x\"":          "HOST:PORT",
		`limits { max_body = "much" }`:                                  "64MiB",
		`limits { burst = 0 }`:                                          "burst",
		`limits { max_connections = -1 }`:                               "max_connections",
	} {
		if _, err := Parse([]byte(entry+text), "r.hcl"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v; want %q", text, err, want)
		}
	}
}
