// Package idle freezes and stops sandboxes that nobody uses, and wakes them for
// what they have scheduled. Of all routers one does so, the holder of a Consul lock:
// the reaper. It decides by what all routers know of their clients (package
// activity) and by the user's policy, asks the gateway itself before it acts, and
// writes down what it did and why.
package idle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// Policy is how long a user's sandbox may be idle. Zero durations are never.
type Policy struct {
	// FreezeAfter is how long nobody was connected, and StopAfter how long nobody did
	// anything, open page or not.
	FreezeAfter, StopAfter time.Duration
	// AlwaysOn is never frozen nor stopped, and started if it does not run.
	AlwaysOn bool
}

// Override is what differs for one user from the router's config, as it lies in
// Consul's KV below PolicyPrefix.
type Override struct {
	FreezeAfter *Duration `json:"freeze_after,omitempty"`
	StopAfter   *Duration `json:"stop_after,omitempty"`
	AlwaysOn    bool      `json:"always_on,omitempty"`
	Comment     string    `json:"comment,omitempty"`
}

// PolicyPrefix is where the overrides of a parameterized job's users lie in Consul's
// KV, one key a user.
func PolicyPrefix(job string) string { return job + "/policy/" }

// Duration is a time.Duration as text in JSON, such as "90m"; "0s" is never.
type Duration time.Duration

// MarshalText is the reverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText returns an error for what is no duration, or a negative one.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		err = errors.New("want 0s for never, or more")
	}
	*d = Duration(v)
	return err
}

// ParseOverride reads what lies in the KV.
func ParseOverride(text []byte) (o Override, err error) {
	if err := json.Unmarshal(text, &o); err != nil {
		return o, fmt.Errorf("policy: %w", err)
	}
	return o, nil
}

// With is the policy of a user with an override.
func (p Policy) With(o Override) Policy {
	if o.FreezeAfter != nil {
		p.FreezeAfter = time.Duration(*o.FreezeAfter)
	}
	if o.StopAfter != nil {
		p.StopAfter = time.Duration(*o.StopAfter)
	}
	p.AlwaysOn = o.AlwaysOn
	return p
}

// Policies are the users' overrides in a Consul's KV. Routers look at them once a
// period.
type Policies struct {
	kv     *consul.KV
	prefix string
}

// NewPolicies returns the policies of a job's users in a Consul's KV.
func NewPolicies(c *consul.Client, job string) Policies {
	return Policies{c.KV(), PolicyPrefix(job)}
}

// All returns every override. What can not be read is left out, and told to bad.
func (p Policies) All(ctx context.Context, bad func(u sandbox.User, err error)) (map[sandbox.User]Override, error) {
	out := map[sandbox.User]Override{}
	return out, each(ctx, p.kv, p.prefix, func(u sandbox.User, text []byte) {
		o, err := ParseOverride(text)
		if err != nil {
			bad(u, err)
			return
		}
		out[u] = o
	})
}

// Of returns the user's override; one that is not there overrides nothing.
func (p Policies) Of(ctx context.Context, u sandbox.User) (o Override, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pair, _, err := p.kv.Get(p.prefix+string(u), (&consul.QueryOptions{}).WithContext(ctx))
	if err != nil || pair == nil {
		return o, err
	}
	return ParseOverride(pair.Value)
}

// Set gives the user an override, in place of any other.
func (p Policies) Set(ctx context.Context, u sandbox.User, o Override) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return put(ctx, p.kv, p.prefix+string(u), text)
}

// Unset takes the user's override away.
func (p Policies) Unset(ctx context.Context, u sandbox.User) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := p.kv.Delete(p.prefix+string(u), (&consul.WriteOptions{}).WithContext(ctx))
	return err
}
