// Package front is where the router meets its clients: certificates that are kept
// fresh (from files, or from an ACME server), the redirect to https, and how many
// connections there may be.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// TLS are the settings of a front that ends TLS.
type TLS struct {
	MinVersion        uint16 // tls.VersionTLS12 or tls.VersionTLS13
	CertFile, KeyFile string // PEM; empty with ACME
	ACME              *ACME  // nil with files
}

// Front gives the listener its certificates. It is safe for concurrent use.
type Front struct {
	config TLS
	domain string
	files  *files            // nil with ACME
	acme   *autocert.Manager // nil with files
}

// New reads the certificate, or prepares to ask for some; nothing is asked for
// before a client comes. domain is the router's.
func New(c TLS, domain string, log *slog.Logger) (*Front, error) {
	f := &Front{config: c, domain: domain}
	var err error
	if c.ACME != nil {
		f.acme, err = c.ACME.manager(domain, log)
		return f, err
	}
	f.files, err = newFiles(c.CertFile, c.KeyFile, log)
	return f, err
}

// Config is for a server, which adds HTTP/2 to it. Extended CONNECT (RFC 8441) is
// not offered, so that browsers open their WebSockets over HTTP/1.1.
func (f *Front) Config() *tls.Config {
	c := &tls.Config{MinVersion: f.config.MinVersion, NextProtos: []string{"h2", "http/1.1"}}
	if f.acme == nil {
		c.GetCertificate = f.files.certificate
		return c
	}
	c.GetCertificate = f.acme.GetCertificate
	c.NextProtos = append(c.NextProtos, acme.ALPNProto)
	return c
}

// Watch looks for changed files until ctx ends.
func (f *Front) Watch(ctx context.Context) {
	if f.files != nil {
		f.files.watch(ctx, filesEvery)
	}
}

// Use takes the certificate from other files from now on. It returns an error, and
// keeps the ones that it has, if they are not valid or this front has ACME.
func (f *Front) Use(certFile, keyFile string) error {
	if f.files == nil {
		return errors.New("certificates come from an ACME server")
	}
	return f.files.use(certFile, keyFile)
}

// Redirect is the handler of the plain listener beside: it answers ACME's http-01
// challenges, and sends everybody else to https. httpsPort is that of the TLS
// listener.
func (f *Front) Redirect(httpsPort string) http.Handler {
	h := redirect(f.domain, httpsPort)
	if f.acme != nil {
		return f.acme.HTTPHandler(h)
	}
	return h
}

// filesEvery is how often the files are looked at.
const filesEvery = 5 * time.Second
