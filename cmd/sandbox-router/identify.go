package main

import (
	"context"
	"log/slog"

	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/config"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/login"
)

// methods are the ways to identify: what a program sends before what a browser
// keeps, and `dev`, which knows everybody, at the end. The login is nil without
// a provider, and so is table without API tokens. ctx bounds the fetching of keys.
func methods(ctx context.Context, c config.Config, table *apitoken.Table, log *slog.Logger, trail *audit.Log) (identity.Method, *login.Login) {
	var any identity.Any
	if len(c.Tokens) > 0 {
		any = append(any, c.Tokens)
	}
	if table != nil {
		any = append(any, table)
	}
	for _, j := range c.JWT {
		any = append(any, identity.NewJWT(ctx, j))
	}
	for _, h := range c.Headers {
		any = append(any, h)
	}
	var people *login.Login
	if c.Login != nil {
		c.Login.Domain, c.Login.Scheme, c.Login.Shares = c.Domain, c.Scheme, c.Shares
		people = login.New(*c.Login, log, trail)
		any = append(any, people)
	}
	if c.DevUser != "" {
		any = append(any, identity.Dev{Self: c.DevUser})
	}
	return identity.Sharing{Method: any, Shares: c.Shares}, people
}
