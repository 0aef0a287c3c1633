package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/webhook"
)

// webhook prints what a channel must know to reach a user's sandbox. It needs no store.
func (t *tool) webhook() *cobra.Command {
	var file, base string
	cmd := &cobra.Command{
		Use:   "webhook USER NAME --secret-file FILE",
		Short: "Print the secret of a user's webhook, to register at its sender",
		Long: `Print the secret of a user's webhook, to register at its sender.

NAME is that of the webhook in the router's config, FILE the first of its secret_files.
The secret is made of the three: nothing is stored, and the same is printed each time.`,
		Args:              cobra.ExactArgs(2),
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(_ *cobra.Command, args []string) error {
			u, err := sandbox.ParseUser(args[0])
			if err != nil {
				return err
			}
			if err := webhook.CheckName(args[1]); err != nil {
				return err
			}
			masters, err := webhook.ReadMasters(file)
			if err != nil {
				return err
			}
			out := struct {
				URL    string `json:"url,omitempty"`
				Secret string `json:"secret"`
			}{strings.ReplaceAll(base, "{user}", string(u)), masters.Secret(args[1], u)}
			if out.URL == "" {
				return t.say(out, "secret: %s", out.Secret)
			}
			if parsed, err := url.Parse(out.URL); err != nil || parsed.Host == "" || parsed.Path == "" {
				return errors.New("--base-url: want the webhook's address, like https://{user}.claw.example.com/telegram-webhook")
			}
			return t.say(out, "url:    %s\nsecret: %s", out.URL, out.Secret)
		},
	}
	cmd.Flags().StringVar(&file, "secret-file", "", "the file with the master secret")
	cmd.Flags().StringVar(&base, "base-url", "", "print the address, too: https://{user}.claw.example.com/PATH, or https://claw.example.com/u/{user}/PATH")
	if err := cmd.MarkFlagRequired("secret-file"); err != nil {
		panic(fmt.Sprint("there is no such flag: ", err))
	}
	return cmd
}
