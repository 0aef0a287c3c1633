package config

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// files are a session key and a client's secret.
func files(t *testing.T) (key, secret string) {
	t.Helper()
	dir := t.TempDir()
	key, secret = filepath.Join(dir, "key"), filepath.Join(dir, "secret")
	for name, text := range map[string]string{key: base64.StdEncoding.EncodeToString(make([]byte, 32)), secret: "s3cret\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, secret
}

func TestIdentity(t *testing.T) {
	key, secret := files(t)
	c, err := Parse(fmt.Appendf(nil, `
identity "oidc" {
  issuer             = "https://dex.example.com"
  client_id          = "openclaw"
  client_secret_file = %q
  email_domain       = "example.com"
  users              = { "Ann.Lee@example.com" = "ann" }
}
session { key_files = [%q] }
identity "jwt" {
  issuer   = "https://team.example.com"
  jwks_url = "https://team.example.com/certs"
  audience = "app"
}
identity "header" {
  header   = "X-Auth-Request-Email"
  networks = ["10.0.0.2/32"]
}
identity "api" {}`, secret, key), "router.hcl")
	if err != nil {
		t.Fatal(err)
	}
	l := c.Login
	if l == nil || l.ClientSecret != "s3cret" || l.Mapping.Claim != "email" || !l.Mapping.NeedVerified || l.Mapping.Users["Ann.Lee@example.com"] != "ann" || l.Lifetime != 12*time.Hour {
		t.Errorf("login: %+v", l)
	}
	if c.APITokens != "openclaw/token/" {
		t.Errorf("API tokens at %q", c.APITokens)
	}
	if len(c.JWT) != 1 || c.JWT[0].Audience != "app" || c.JWT[0].Mapping.Claim != "sub" || len(c.Headers) != 1 || len(c.Headers[0].Networks) != 1 {
		t.Errorf("jwt %+v, header %+v", c.JWT, c.Headers)
	}
}

func TestIdentityProblems(t *testing.T) {
	for text, want := range map[string]string{
		`identity "oidc" { 
  issuer = "http://dex.example.com" 
  client_id = "x" 
}`: "https",
		`identity "oidc" { 
  issuer = "https://dex.example.com" 
}`: "client_id",
		`identity "oidc" { 
  issuer = "https://dex.example.com" 
  client_id = "x" 
}`: "session {",
		`identity "jwt" { 
  issuer = "https://a.test" 
  jwks_url = "https://a.test/" 
}`: "audience",
		`identity "header" { header = "X-User" }`:        "networks",
		`identity "header" { header = "Authorization" }`: "header:",
		`identity "header" { 
  header = "X-User" 
  networks = ["0.0.0.0/0"] 
}`: "whole world",
		`identity "magic" {}`:                          "not one of",
		`identity "api" { prefix = "openclaw/token" }`: "slash",
		`identity "api" { prefix = "/" }`:              "slash",
		"identity \"api\" {}\nidentity \"api\" {}":     "one already",
	} {
		if _, err := Parse([]byte(text), "router.hcl"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v; want %q", text, err, want)
		}
	}
}
