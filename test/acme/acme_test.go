// Package acme gets certificates from a real ACME server (RFC 8555) on loopback.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"openclaw-sandbox/internal/front"
)

// limit bounds an exchange with the servers.
const limit = time.Minute

// router is the front of one, with its two listeners.
type router struct{ tls, plain net.Listener }

func listen(t *testing.T) router {
	t.Helper()
	var l [2]net.Listener
	for i := range l {
		var err error
		if l[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	return router{l[0], l[1]}
}

// serve serves both until the test ends.
func (r router) serve(t *testing.T, f *front.Front) {
	t.Helper()
	quiet := slog.NewLogLogger(slog.NewTextHandler(t.Output(), nil), slog.LevelError)
	secure := &http.Server{Handler: http.NotFoundHandler(), TLSConfig: f.Config(), ErrorLog: quiet}
	plain := &http.Server{Handler: f.Redirect(port(r.tls))}
	ended := make(chan error, 2)
	go func() { ended <- secure.ServeTLS(r.tls, "", "") }()
	go func() { ended <- plain.Serve(r.plain) }()
	t.Cleanup(func() {
		secure.Close()
		plain.Close()
		<-ended
		<-ended
	})
}

func port(l net.Listener) string {
	_, p, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		panic(err) // net.Listen gave it
	}
	return p
}

// certificate is what the router shows for a host, verified.
func (r router) certificate(t *testing.T, host string, roots *x509.CertPool) (*x509.Certificate, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: roots}}
	conn, err := d.DialContext(ctx, "tcp", r.tls.Addr().String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

func TestCertificatesOnDemand(t *testing.T) {
	for name, plainOnly := range map[string]bool{"tls-alpn-01": false, "http-01": true} {
		t.Run(name, func(t *testing.T) {
			r := listen(t)
			validated := r
			if plainOnly { // where nobody listens, so that the server must come to the plain one
				validated.tls = listen(t).tls
				validated.tls.Close()
			}
			ca := startServer(t, port(validated.tls), port(r.plain))
			settings := front.TLS{MinVersion: tls.VersionTLS12, ACME: &front.ACME{CacheDir: filepath.Join(t.TempDir(), "acme"), DirectoryURL: ca.directory,
				CAFile: ca.caFile, Email: "ops@claw.test", NewPerHour: 2}}
			f, err := front.New(settings, "claw.test", slog.New(slog.NewTextHandler(t.Output(), nil)))
			if err != nil {
				t.Fatal(err)
			}
			r.serve(t, f)
			roots := ca.roots(t)

			for _, host := range []string{"evil.test", "a.b.claw.test", "-x.claw.test"} {
				if _, err := r.certificate(t, host, roots); err == nil {
					t.Errorf("%s has a certificate", host)
				}
			}
			alice, err := r.certificate(t, "alice.claw.test", roots)
			if err != nil {
				t.Fatal(err)
			}
			again, err := r.certificate(t, "alice.claw.test", roots)
			if err != nil || again.SerialNumber.Cmp(alice.SerialNumber) != 0 {
				t.Errorf("the second time: %v, or another certificate", err)
			}
			if _, err := r.certificate(t, "claw.test", roots); err != nil {
				t.Error(err)
			}
			if _, err := r.certificate(t, "carol.claw.test", roots); err == nil {
				t.Error("a third new host within the hour has a certificate")
			}

			// Another router, with the same folder.
			other := listen(t)
			if f, err = front.New(settings, "claw.test", slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
				t.Fatal(err)
			}
			other.serve(t, f)
			if again, err = other.certificate(t, "alice.claw.test", roots); err != nil || again.SerialNumber.Cmp(alice.SerialNumber) != 0 {
				t.Errorf("at another router: %v, or another certificate", err)
			}
			resp, err := http.Get("http://" + r.plain.Addr().String() + "/.well-known/acme-challenge/x")
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("a challenge of no host of ours: %s", resp.Status)
			}
		})
	}
}
