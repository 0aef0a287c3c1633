package identity

import (
	"net/http/httptest"
	"slices"
	"testing"

	"openclaw-sandbox/internal/sandbox"
)

func TestShares(t *testing.T) {
	shares := Shares{"team-x": {Users: []sandbox.User{"alice", "bob"}, Groups: []string{"x"}}, "lab": {Groups: []string{"science", "x"}}}
	for name, c := range map[string]struct {
		caller Caller
		may    []sandbox.User
	}{
		"member":               {Caller{User: "alice", Role: RoleUser}, []sandbox.User{"alice", "team-x"}},
		"by group":             {Caller{User: "carol", Role: RoleUser, Groups: []string{"science"}}, []sandbox.User{"carol", "lab"}},
		"by both":              {Caller{User: "bob", Role: RoleUser, Groups: []string{"x"}}, []sandbox.User{"bob", "lab", "team-x"}},
		"nobody's":             {Caller{User: "dave", Role: RoleUser, Groups: []string{"y"}}, []sandbox.User{"dave"}},
		"the shared one":       {Caller{User: "team-x", Role: RoleUser}, []sandbox.User{"team-x"}}, // and none of its members'
		"a group's name":       {Caller{User: "x", Role: RoleUser}, nil},
		"in a member's place":  {Caller{User: "alice", Role: RoleUser, By: "ops"}, []sandbox.User{"alice"}},
		"an admin":             {Caller{User: "ops", Role: RoleAdmin}, []sandbox.User{"alice", "bob", "carol", "dave", "lab", "team-x"}},
		"no caller of a share": {Caller{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var may []sandbox.User
			for _, u := range []sandbox.User{"alice", "bob", "carol", "dave", "lab", "team-x"} {
				if shares.For(c.caller).May(u) {
					may = append(may, u)
				}
			}
			if !slices.Equal(may, c.may) {
				t.Errorf("may use %q, want %q", may, c.may)
			}
		})
	}
	tok, err := ParseToken(sum("t"), "alice", "user")
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer t")
	if c, err := (Sharing{Method: Any{Tokens{tok}}, Shares: shares}).Identify(r); err != nil || !c.May("team-x") || c.May("lab") {
		t.Errorf("Identify = %+v, %v", c, err)
	}
}

// A caller keeps the groups that matter, and only a list is a list of groups.
func TestSharedGroups(t *testing.T) {
	m := Mapping{Claim: "sub", GroupsClaim: "groups"}
	if !m.Share([]string{"x", "science"}) {
		t.Fatal("it tells groups")
	}
	for name, c := range map[string]struct {
		groups any
		want   []string
	}{
		"some": {[]any{"all", "x", "other"}, []string{"x"}}, "none": {nil, nil}, "a text": {"x", nil}, "numbers": {[]any{7}, nil},
	} {
		got, err := m.Caller(map[string]any{"sub": "alice", "groups": c.groups})
		if err != nil || !slices.Equal(got.Groups, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if silent := (&Mapping{Claim: "sub"}); silent.Share([]string{"x"}) {
		t.Error("it tells no groups")
	}
}
