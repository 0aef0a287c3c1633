package config

import (
	"slices"

	"github.com/hashicorp/hcl/v2"

	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

type shareBlock struct {
	Sandbox string   `hcl:"sandbox,label" doc:"the sandbox; a name that is nobody's id is best" want:"a user id"`
	Users   []string `hcl:"users,optional" default:"[]" doc:"who may use it, however they come in" want:"user ids"`
	Groups  []string `hcl:"groups,optional" default:"[]" doc:"likewise, groups of an identity's groups_claim" want:"names that are not empty"`
	Body    hcl.Body `hcl:",body"`
}

func (f *file) applyShares(c *Config, bad *problems) {
	for _, b := range f.Share {
		b.apply(c, bad.in(b.Body, "share", b.Sandbox))
	}
	groups := c.Shares.Groups()
	told := len(groups) == 0
	for i := range c.JWT {
		told = c.JWT[i].Mapping.Share(groups) || told
	}
	if c.Login != nil {
		told = c.Login.Mapping.Share(groups) || told
	}
	if !told {
		bad.at("share.groups", "no identity block says who is in them; set groups_claim in one of kind oidc or jwt")
	}
}

func (b shareBlock) apply(c *Config, bad scope) {
	owner, err := sandbox.ParseUser(b.Sandbox)
	bad.err(err)
	if _, ok := c.Shares[owner]; ok {
		bad.at("", "is there twice")
	}
	if len(b.Users)+len(b.Groups) == 0 {
		bad.at("", "want users or groups, whose members may use this sandbox too")
	}
	s := identity.Share{Groups: b.Groups}
	for _, text := range b.Users {
		u, err := sandbox.ParseUser(text)
		if err != nil {
			bad.at("users", "%q: %v", text, err)
		}
		s.Users = append(s.Users, u)
	}
	if slices.Contains(b.Groups, "") {
		bad.at("groups", "want names that are not empty")
	}
	if c.Shares == nil {
		c.Shares = identity.Shares{}
	}
	c.Shares[owner] = s
}
