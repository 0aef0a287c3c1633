package config

import (
	"errors"
	"strings"
	"testing"
)

// One look tells everything that is wrong, each with its line, in the order of the file.
func TestEveryProblemAtOnce(t *testing.T) {
	const text = `listen = "nowhere"
scheme = "ftp"
drain_dely = "2s"
identity "oidc" {
  issuer   = "http://a.test"
  audience = "x"
}
identity "jwt" {
  jwks_url = "x"
}
identity "token" {
  token "A" { role = "king" }
}
session {
  key_files = ["/no/such/file"]
  lifetime  = "0s"
}
share "team" { users = ["A", "B"] }
webhook "x" {
  path       = "/api/x"
  signatur   = "slack"
  max_body   = 0
}
consul { shards = 0 }
wake {
  max_starting  = "many"
  hold_timeout  = "0s"
  start_timeout = "x"
}
upstrem { dial_timeout = "1s" }
acme {
  directory_url = "http://a.test"
}
`
	want := []string{
		`:1,10: listen: want HOST:PORT`,
		`:2,10: scheme: want "http" or "https"`,
		`:3,1: An argument named "drain_dely" is not expected here. Did you mean "drain_delay"?`,
		`:4,17: identity "oidc": client_id: want`,
		`:5,14: identity "oidc": issuer: want an https address`,
		`:6,14: identity "oidc": audience: is a setting of identity jwt only`,
		`:8,16: identity "jwt": issuer: want`,
		`:8,16: identity "jwt": audience: want`,
		`:9,14: identity "jwt": jwks_url: want`,
		`:12,15: token "A": sha256: want 64 hex digits`,
		`:12,15: token "A": user: `,
		`:12,22: token "A": role: want "user" or "admin"`,
		`:15,15: session.key_files: `,
		`:16,15: session.lifetime: want a duration`,
		`:18,24: share "team": users: "A": `,
		`:18,24: share "team": users: "B": `,
		`:19,13: webhook "x": want secret_files`,
		`:19,13: webhook "x": signature: want one of`,
		`:20,16: webhook "x": path: "/api/x" is below`,
		`:21,3: An argument named "signatur" is not expected here. Did you mean "signature"?`,
		`:22,16: webhook "x": max_body: want 1 or more`,
		`:24,19: consul.shards: want 1 to 128`,
		`:26,20: Unsuitable value: a number is required`,
		`:27,19: wake.hold_timeout: want`,
		`:28,19: wake.start_timeout: want`,
		`:30,1: Blocks of type "upstrem" are not expected here. Did you mean "upstream"?`,
		`:31,6: acme.cache_dir: want`,
		`:32,19: acme.directory_url: want an https address`,
	}
	_, err := Parse([]byte(text), "r.hcl")
	bad, ok := errors.AsType[*Invalid](err)
	if !ok {
		t.Fatal(err)
	}
	if len(bad.Problems) != len(want) {
		t.Fatalf("%d problems, want %d:\n%s", len(bad.Problems), len(want), strings.Join(bad.Problems, "\n"))
	}
	for i, p := range bad.Problems {
		place, text, _ := strings.Cut(want[i], ": ")
		if !strings.HasPrefix(p, "r.hcl"+place+"-") || !strings.Contains(p, text) {
			t.Errorf("problem %d is %q, want %q", i, p, want[i])
		}
		if line, _, _ := strings.Cut(place[1:], ","); !strings.Contains(err.Error(), "r.hcl line "+line) {
			t.Errorf("the error does not show the line of %q", p)
		}
	}
}
