package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/login"
	"openclaw-sandbox/internal/session"
)

// The names under which the table and the goals know two ways to identify.
const (
	partCookie = "who is asking, by a session's cookie"
	partJWT    = "who is asking, by a JWT that was verified before"
)

// byCookie is a request of a browser, and who knows it.
func byCookie() (func() error, error) {
	key := make([]byte, session.KeySize)
	rand.Read(key)
	keys, err := session.NewKeys(key)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	people := login.New(login.Config{Domain: "localhost", Scheme: "http", Issuer: "http://127.0.0.1:1", Keys: keys, Lifetime: time.Hour, Timeout: time.Second, StartsPerMinute: 1}, log, audit.New(log))
	sealed, err := keys.Seal(map[string]string{"u": user, "r": string(identity.RoleUser)}, "sandbox-session", user+".localhost", time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodGet, "http://"+user+".localhost/", nil)
	if err != nil {
		return nil, err
	}
	cookie := []string{"sandbox-session=" + sealed + "; of-the-sandbox=1"}
	all := identity.Any{people}
	return func() error {
		r.Header["Cookie"] = cookie // it is taken out
		_, err := all.Identify(r)
		return err
	}, nil
}

// byJWT is the same for a request with a JWT. ctx bounds the fetching of keys.
func byJWT(ctx context.Context) (func() error, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	jwks := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: string(jose.ES256), Use: "sig"}}})
	})}
	go jwks.Serve(l) // ends with ctx
	context.AfterFunc(ctx, func() { jwks.Close() })
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		return nil, err
	}
	const issuer, header = "http://127.0.0.1", "Cf-Access-Jwt-Assertion"
	token, err := jwt.Signed(signer).Claims(map[string]any{"iss": issuer, "aud": "app", "sub": user, "exp": time.Now().Add(time.Hour).Unix()}).Serialize()
	if err != nil {
		return nil, err
	}
	method := identity.NewJWT(ctx, identity.JWTConfig{Issuer: issuer, JWKS: fmt.Sprintf("http://%s/", l.Addr()), Audience: "app", Header: header,
		Mapping: identity.Mapping{Claim: "sub"}, Timeout: time.Second})
	r, err := http.NewRequest(http.MethodGet, "http://"+host+"/", nil)
	if err != nil {
		return nil, err
	}
	r.RemoteAddr = "127.0.0.1:1"
	value := []string{token}
	return func() error {
		r.Header[header] = value
		_, err := method.Identify(r)
		return err
	}, nil
}
