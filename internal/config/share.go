package config

import (
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

type shareBlock struct {
	Sandbox string   `hcl:"sandbox,label"`
	Users   []string `hcl:"users,optional"`
	Groups  []string `hcl:"groups,optional"`
	Body    hcl.Body `hcl:",body"`
}

func (f *file) applyShares(c *Config, bad *problems) {
	for _, b := range f.Share {
		if err := b.apply(c); err != nil {
			bad.in(b.Body, fmt.Sprintf("share %q: %v", b.Sandbox, err))
		}
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
		bad.at("share", "groups: no identity block says who is in them; set groups_claim in one of kind oidc or jwt")
	}
}

func (b shareBlock) apply(c *Config) error {
	owner, err := sandbox.ParseUser(b.Sandbox)
	if err != nil {
		return err
	}
	if _, ok := c.Shares[owner]; ok {
		return errors.New("is there twice")
	}
	if len(b.Users)+len(b.Groups) == 0 {
		return errors.New("want users or groups, whose members may use this sandbox too")
	}
	s := identity.Share{Groups: b.Groups}
	for _, text := range b.Users {
		u, err := sandbox.ParseUser(text)
		if err != nil {
			return fmt.Errorf("users: %q: %w", text, err)
		}
		s.Users = append(s.Users, u)
	}
	for _, g := range b.Groups {
		if g == "" {
			return errors.New("groups: want names that are not empty")
		}
	}
	if c.Shares == nil {
		c.Shares = identity.Shares{}
	}
	c.Shares[owner] = s
	return nil
}
