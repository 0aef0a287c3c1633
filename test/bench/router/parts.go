package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/upstream"
	"openclaw-sandbox/test/rig"
)

// part is work that ours does for each request and the others do not.
type part struct {
	name string
	took time.Duration
}

// parts measures them alone.
func parts(ctx context.Context, consul *devcluster.Consul) ([]part, error) {
	known, err := identity.ParseToken(sum(token), user, "user")
	if err != nil {
		return nil, err
	}
	var method identity.Method = identity.Any{identity.Tokens{known}}
	req, err := http.NewRequest(http.MethodGet, "http://"+host+"/bytes", nil)
	if err != nil {
		return nil, err
	}
	req.RemoteAddr, req.Header = "127.0.0.1:1", header()
	bearer := req.Header["Authorization"]

	if err := rig.Route(ctx, consul, user, "127.0.0.1:1"); err != nil {
		return nil, err
	}
	cat, err := catalog.New(catalog.DefaultConfig(), consul.Client(), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- cat.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	if _, err := cat.Wait(ctx, user, func(catalog.Instance) bool { return true }); err != nil {
		return nil, err
	}
	px := proxy.New(proxy.Config{ForwardedClient: "192.0.2.1", Scheme: "http"}, slog.New(slog.DiscardHandler))
	defer px.Close()
	cookie, err := byCookie()
	if err != nil {
		return nil, err
	}
	verified, err := byJWT(ctx)
	if err != nil {
		return nil, err
	}
	var failed error
	h := http.Header{}
	var all []part
	for _, p := range []struct {
		name string
		do   func() error
	}{
		{"who is asking (SHA-256 of a token)", func() error {
			req.Header["Authorization"] = bearer // it is taken out
			_, err := method.Identify(req)
			return err
		}},
		{partCookie, cookie},
		{partJWT, verified},
		{"the route (catalog)", func() error {
			if _, ok := cat.Lookup(sandbox.User(user)); !ok {
				return errors.New("the catalog has lost the route")
			}
			return nil
		}},
		{"headers: drop what claims an identity, set ours", func() error {
			clear(h)
			upstream.EndToEnd(h, req.Header)
			px.SetIdentity(h, req, user)
			return nil
		}},
	} {
		r := testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				failed = errors.Join(failed, p.do())
			}
		})
		if failed != nil {
			return nil, failed
		}
		all = append(all, part{p.name, time.Duration(r.NsPerOp())})
	}
	return all, nil
}
