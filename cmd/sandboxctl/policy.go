package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	consul "github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"

	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/sandbox"
)

// policy needs Consul, and no store.
func (t *tool) policy() *cobra.Command {
	var p idle.Policies
	var job string
	cmd := &cobra.Command{Use: "policy", Short: "Say for a user when an idle sandbox is frozen and stopped",
		Long: `Say for a user when an idle sandbox is frozen and stopped, in place of what the
routers' config says for everybody. It lies in Consul, and counts within seconds:
CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN and their TLS siblings say where; the right is
key:write on JOB/policy/. No store is needed.`,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			c, err := consul.NewClient(consul.DefaultConfig())
			if err == nil {
				p = idle.NewPolicies(c, job)
			}
			return err
		}}
	cmd.PersistentFlags().StringVar(&job, "job", idle.DefaultConfig().Job, "the parameterized job, as in the routers' config")
	cmd.AddCommand(t.policySet(&p), t.policyList(&p), t.policyUnset(&p))
	return cmd
}

// errConsul is a policy that Consul did not give or take.
var errConsul = errors.New("Consul does not answer, or refuses")

func (t *tool) policySet(p *idle.Policies) *cobra.Command {
	var freeze, stop time.Duration
	var o idle.Override
	cmd := &cobra.Command{Use: "set USER", Short: "Give a user a policy, in place of the one before", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := sandbox.ParseUser(args[0])
			if err != nil {
				return err
			}
			for name, d := range map[string]struct {
				from time.Duration
				into **idle.Duration
			}{"freeze-after": {freeze, &o.FreezeAfter}, "stop-after": {stop, &o.StopAfter}} {
				if d.from < 0 {
					return fmt.Errorf("--%s: want 0s for never, or more, got %s", name, d.from)
				}
				if cmd.Flags().Changed(name) {
					v := idle.Duration(d.from)
					*d.into = &v
				}
			}
			if o == (idle.Override{Comment: o.Comment}) {
				return errors.New("nothing differs from the config: say --always-on, --freeze-after or --stop-after, or `sandboxctl policy unset USER`")
			}
			if err := p.Set(cmd.Context(), u, o); err != nil {
				return fmt.Errorf("%w: %w", errConsul, err)
			}
			return t.say(o, "The sandbox of %s: %s.", u, sentence(o))
		}}
	f := cmd.Flags()
	f.BoolVar(&o.AlwaysOn, "always-on", false, "never freeze nor stop it, and start it if it does not run")
	f.DurationVar(&freeze, "freeze-after", 0, "since its last client was connected; 0s: never")
	f.DurationVar(&stop, "stop-after", 0, "since its last activity, open page or not; 0s: never")
	f.StringVarP(&o.Comment, "message", "m", "", "why")
	return cmd
}

func (t *tool) policyList(p *idle.Policies) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the users who have a policy of their own", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var broken [][]string
		all, err := p.All(cmd.Context(), func(u sandbox.User, err error) { broken = append(broken, []string{string(u), "?", err.Error()}) })
		if err != nil {
			return fmt.Errorf("%w: %w", errConsul, err)
		}
		rows := [][]string{}
		for _, u := range slices.Sorted(maps.Keys(all)) {
			rows = append(rows, []string{string(u), sentence(all[u]), all[u].Comment})
		}
		return t.show(all, "USER\tPOLICY\tCOMMENT", append(rows, broken...))
	}}
}

func (t *tool) policyUnset(p *idle.Policies) *cobra.Command {
	return &cobra.Command{Use: "unset USER", Short: "Let the routers' config count for a user again", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		u, err := sandbox.ParseUser(args[0])
		if err != nil {
			return err
		}
		if err := p.Unset(cmd.Context(), u); err != nil {
			return fmt.Errorf("%w: %w", errConsul, err)
		}
		return t.say(map[string]any{"user": u}, "For %s the routers' config counts.", u)
	}}
}

// sentence is an override for people.
func sentence(o idle.Override) string {
	if o.AlwaysOn {
		return "always on"
	}
	after := func(what string, d *idle.Duration) string {
		switch {
		case d == nil:
			return what + " as configured"
		case *d == 0:
			return "never " + what
		}
		return what + " after " + time.Duration(*d).String()
	}
	return after("frozen", o.FreezeAfter) + ", " + after("stopped", o.StopAfter)
}
