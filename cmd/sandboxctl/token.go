package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	consul "github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"

	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

// token needs Consul, and no store.
func (t *tool) token() *cobra.Command {
	var tokens apitoken.Store
	cmd := &cobra.Command{Use: "token", Short: "Look after API tokens, which routers with identity \"api\" accept",
		Long: `Look after API tokens, which routers with identity "api" accept within about a second,
and refuse as soon after they are revoked. They are kept in Consul, by their SHA-256:
CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN and their TLS siblings say where; the right is
key:write on the prefix. No store is needed.`,
		PersistentPreRunE: func(*cobra.Command, []string) (err error) {
			if !strings.HasSuffix(tokens.Prefix, "/") {
				return fmt.Errorf("--prefix: want a slash at its end, got %q", tokens.Prefix)
			}
			tokens.Consul, err = consul.NewClient(consul.DefaultConfig())
			return err
		}}
	cmd.PersistentFlags().StringVar(&tokens.Prefix, "prefix", apitoken.DefaultPrefix, "where they are kept, as in the routers' config")
	cmd.AddCommand(t.tokenCreate(&tokens), t.tokenList(&tokens), t.tokenRevoke(&tokens))
	return cmd
}

func (t *tool) tokenCreate(tokens *apitoken.Store) *cobra.Command {
	var role, expires, comment string
	cmd := &cobra.Command{Use: "create USER", Short: "Make a token and print it, this once", Args: cobra.ExactArgs(1),
		Long: "Make a token and print it, alone on the standard output. It can not be had again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := sandbox.ParseUser(args[0])
			if err != nil {
				return err
			}
			life, err := lifetime(expires)
			if err != nil {
				return err
			}
			i := apitoken.Info{User: u, Role: identity.Role(role), Comment: comment}
			if life > 0 {
				i.Expires = time.Now().Add(life).UTC().Truncate(time.Second)
			}
			token, i, err := tokens.Create(cmd.Context(), i)
			if err != nil {
				return err
			}
			if t.json {
				return json.NewEncoder(os.Stdout).Encode(struct {
					Token string `json:"token"`
					apitoken.Info
				}{token, i})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Token %s of %s, role %s, expires: %s. It is not shown again:\n", i.ID, i.User, i.Role, until(i))
			_, err = fmt.Println(token)
			return err
		}}
	cmd.Flags().StringVar(&role, "role", string(identity.RoleUser), "user: their own sandbox; admin: every sandbox")
	cmd.Flags().StringVar(&expires, "expires", "90d", "after how long it is worth nothing, like 90d or 12h; \"never\"")
	cmd.Flags().StringVarP(&comment, "message", "m", "", "what it is for")
	return cmd
}

func (t *tool) tokenList(tokens *apitoken.Store) *cobra.Command {
	return &cobra.Command{Use: "list [USER]", Short: "List tokens; never what lets anybody in", Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		var of sandbox.User
		if len(args) > 0 {
			var err error
			if of, err = sandbox.ParseUser(args[0]); err != nil {
				return err
			}
		}
		list, err := tokens.List(cmd.Context(), of)
		if err != nil {
			return err
		}
		rows := [][]string{}
		for _, l := range list {
			if l.Error != "" {
				rows = append(rows, []string{l.ID, string(l.User), "?", "", "", l.Error})
				continue
			}
			rows = append(rows, []string{l.ID, string(l.User), string(l.Role), when(l.Created), until(l.Info), l.Comment})
		}
		return t.show(list, "ID\tUSER\tROLE\tCREATED\tEXPIRES\tCOMMENT", rows)
	}}
}

func (t *tool) tokenRevoke(tokens *apitoken.Store) *cobra.Command {
	return &cobra.Command{Use: "revoke ID", Short: "Make a token worthless, within about a second", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		if err := tokens.Revoke(cmd.Context(), args[0]); err != nil {
			return err
		}
		return t.say(map[string]any{"revoked": args[0]}, "Token %s is revoked.", args[0])
	}}
}

func until(i apitoken.Info) string {
	switch {
	case i.Expires.IsZero():
		return "never"
	case i.Expired(time.Now()):
		return when(i.Expires) + " (expired)"
	}
	return when(i.Expires)
}

const maxDays = 36500

// lifetime reads days or a Go duration; 0 is for ever.
func lifetime(text string) (time.Duration, error) {
	if text == "never" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		if n, err = strconv.Atoi(days); n > maxDays {
			n = 0
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < time.Minute {
		return 0, fmt.Errorf("--expires: want something like 90d, 12h or never, and a minute at least, got %q", text)
	}
	return d, nil
}
