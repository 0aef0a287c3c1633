package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/time/rate"

	"openclaw-sandbox/internal/sandbox"
)

// ACME are the settings of certificates that are had on demand, one for each host
// (RFC 8555; challenges tls-alpn-01, and http-01 where there is a plain listener).
// There are no wildcards: those need DNS-01, by a tool that writes files.
type ACME struct {
	Domains      []string // hosts; empty: the router's domain, and <user> below it
	Email        string   // for the server's warnings; may be empty
	CacheDir     string   // account and certificates; may be shared by routers
	DirectoryURL string   // empty: Let's Encrypt
	CAFile       string   // PEM: whose certificate the ACME server may have; empty: the system's
	NewPerHour   int      // certificates for hosts that had none; 0 for no limit
}

// acmeTimeout bounds one exchange with the ACME server.
const acmeTimeout = 30 * time.Second

func (a *ACME) manager(domain string, log *slog.Logger) (*autocert.Manager, error) {
	client := &acme.Client{DirectoryURL: a.DirectoryURL, UserAgent: "openclaw-sandbox"}
	if client.DirectoryURL == "" {
		client.DirectoryURL = acme.LetsEncryptURL
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if a.CAFile != "" {
		text, err := os.ReadFile(a.CAFile)
		if err != nil {
			return nil, fmt.Errorf("acme.ca_file: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("acme.ca_file: %s has no certificate", a.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	client.HTTPClient = &http.Client{Transport: newOrders(transport), Timeout: acmeTimeout}
	if err := os.MkdirAll(a.CacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("acme.cache_dir: %w", err)
	}
	b := &budget{Cache: autocert.DirCache(a.CacheDir), left: rate.NewLimiter(rate.Inf, 0), log: log}
	if a.NewPerHour > 0 {
		b.left = rate.NewLimiter(rate.Every(time.Hour/time.Duration(a.NewPerHour)), a.NewPerHour)
	}
	return &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: b, HostPolicy: a.policy(domain), Client: client, Email: a.Email}, nil
}

// errHost: nobody may make this router ask for certificates of any name.
var errHost = errors.New("this router does not serve that host")

// policy lets through the hosts that the router serves.
func (a *ACME) policy(domain string) autocert.HostPolicy {
	return func(_ context.Context, host string) error {
		host, _, _ = strings.Cut(host, ":")
		if len(a.Domains) > 0 {
			if slices.Contains(a.Domains, host) {
				return nil
			}
			return errHost
		}
		if !serves(domain, host) {
			return errHost
		}
		return nil
	}
}

// serves reports that host is domain, or a user's below it.
func serves(domain, host string) bool {
	if host == domain {
		return true
	}
	name, ok := strings.CutSuffix(host, "."+domain)
	if !ok {
		return false
	}
	_, err := sandbox.ParseUser(name)
	return err == nil
}

// errBudget is what a client's handshake fails with.
var errBudget = errors.New("too many new certificates within an hour")

// budget bounds the certificates for new hosts: everybody may make up names of
// users, and an ACME server has limits of its own, for the whole domain.
type budget struct {
	autocert.Cache
	left *rate.Limiter
	log  *slog.Logger
}

// Get is asked for a host's certificate before a new one is ordered.
func (b *budget) Get(ctx context.Context, key string) ([]byte, error) {
	text, err := b.Cache.Get(ctx, key)
	host, kind, _ := strings.Cut(key, "+") // autocert: HOST, HOST+rsa, HOST+token, HOST+http-01, acme_account+key
	if !errors.Is(err, autocert.ErrCacheMiss) || kind != "" && kind != "rsa" || strings.HasPrefix(host, "acme_account") {
		return text, err
	}
	if !b.left.Allow() {
		b.log.Warn("no certificate for a new host", "host", host, "error", errBudget, "remedy", "raise acme.new_per_hour, or use a wildcard certificate from files")
		return nil, errBudget
	}
	b.log.Info("asking for a certificate", "host", host)
	return nil, err
}
