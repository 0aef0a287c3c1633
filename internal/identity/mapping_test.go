package identity

import (
	"testing"

	"openclaw-sandbox/internal/sandbox"
)

func TestMapping(t *testing.T) {
	m := Mapping{Claim: "email", EmailDomain: "example.com", NeedVerified: true, Users: map[string]sandbox.User{"Ann.Lee@example.com": "ann"},
		Admins: []string{"root@example.com"}, GroupsClaim: "groups", AdminGroup: "ops"}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		claims map[string]any
		user   sandbox.User
		role   Role
	}{
		"by rule":           {map[string]any{"email": "bob@example.com", "email_verified": true}, "bob", RoleUser},
		"by map":            {map[string]any{"email": "Ann.Lee@example.com", "email_verified": true}, "ann", RoleUser},
		"admin by list":     {map[string]any{"email": "root@example.com", "email_verified": true}, "root", RoleAdmin},
		"admin by group":    {map[string]any{"email": "bob@example.com", "email_verified": true, "groups": []any{"ops"}}, "bob", RoleAdmin},
		"group as text":     {map[string]any{"email": "bob@example.com", "email_verified": true, "groups": "ops"}, "bob", RoleUser},
		"id of another":     {map[string]any{"email": "ann@example.com", "email_verified": true}, "", ""},
		"not verified":      {map[string]any{"email": "bob@example.com", "email_verified": false}, "", ""},
		"verified as text":  {map[string]any{"email": "bob@example.com", "email_verified": "true"}, "", ""},
		"verified unsaid":   {map[string]any{"email": "bob@example.com"}, "", ""},
		"other domain":      {map[string]any{"email": "bob@example.com.evil.test", "email_verified": true}, "", ""},
		"two at signs":      {map[string]any{"email": "bob@evil.test@example.com", "email_verified": true}, "", ""},
		"upper case":        {map[string]any{"email": "Bob@example.com", "email_verified": true}, "", ""},
		"would be the same": {map[string]any{"email": "b.ob@example.com", "email_verified": true}, "", ""},
		"not a text":        {map[string]any{"email": 7, "email_verified": true}, "", ""},
		"none":              {nil, "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := m.Caller(c.claims)
			if got.User != c.user || got.Role != c.role || (err == nil) != (c.user != "") {
				t.Errorf("Caller = %+v, %v; want %s %s", got, err, c.user, c.role)
			}
		})
	}
}

func TestMappingCheck(t *testing.T) {
	for name, m := range map[string]Mapping{
		"no claim":       {},
		"two as one":     {Claim: "sub", Users: map[string]sandbox.User{"a": "ann", "b": "ann"}},
		"bad user":       {Claim: "sub", Users: map[string]sandbox.User{"a": "Ann"}},
		"no group claim": {Claim: "sub", AdminGroup: "ops"},
	} {
		if m.Check() == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
