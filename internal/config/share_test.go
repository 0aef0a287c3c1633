package config

import (
	"slices"
	"strings"
	"testing"
)

func TestShare(t *testing.T) {
	const jwt = "identity \"jwt\" {\n issuer = \"https://a.test\"\n jwks_url = \"https://a.test/\"\n audience = \"app\"\n groups_claim = \"groups\"\n}\n"
	c, err := Parse([]byte(jwt+`
share "team-x" { users = ["alice", "bob"] }
share "lab" { groups = ["science", "x"] }`), "router.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Shares["team-x"]; len(c.Shares) != 2 || len(s.Users) != 2 || s.Users[0] != "alice" || !slices.Equal(c.JWT[0].Mapping.Shared, []string{"science", "x"}) {
		t.Errorf("shares %+v, groups %q", c.Shares, c.JWT[0].Mapping.Shared)
	}
	for text, want := range map[string]string{
		`share "Team" { users = ["alice"] }`:                               `share "Team"`,
		`share "team" { users = ["Alice"] }`:                               `users: "Alice"`,
		`share "team" {}`:                                                  "want users or groups",
		`share "team" { groups = [""] }`:                                   "not empty",
		`share "team" { groups = ["x"] }`:                                  "groups_claim",
		`share "team" { user = "alice" }`:                                  "user",
		"share \"t\" { users = [\"a\"] }\nshare \"t\" { users = [\"b\"] }": "twice",
	} {
		if _, err := Parse([]byte("identity \"dev\" {}\n"+text), "router.hcl"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v; want %q", text, err, want)
		}
	}
}
