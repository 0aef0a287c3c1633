package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"openclaw-sandbox/internal/front/fronttest"
)

// pair writes a certificate of that name, and its key.
func pair(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	fronttest.Certify(t, certFile, keyFile, name, name)
	return certFile, keyFile
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// log is safe to read while it is written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) has(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), what)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

func (f *files) name(t *testing.T) string {
	t.Helper()
	c, err := f.certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.Subject.CommonName
}

func TestFilesAreWatched(t *testing.T) {
	dir, out := t.TempDir(), &log{}
	cert, key := pair(t, dir, "first")
	f, err := newFiles(cert, key, slog.New(slog.NewTextHandler(out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { f.watch(ctx, time.Millisecond) })
	defer ended.Wait()
	defer cancel()

	write(t, cert, []byte("broken"))
	eventually(t, "a complaint", func() bool { return out.has("the old one stays") })
	if f.name(t) != "first" {
		t.Error("a broken file was taken over")
	}
	pair(t, dir, "second")
	eventually(t, "the new certificate", func() bool { return f.name(t) == "second" })
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another complaint", func() bool { return out.has("no such file") })
	pair(t, dir, "third")
	eventually(t, "the third certificate", func() bool { return f.name(t) == "third" })

	other, otherKey := pair(t, t.TempDir(), "other")
	if err := f.use(other, "/no/such/file"); err == nil || f.name(t) != "third" {
		t.Errorf("other files that are not there: %v, serving %s", err, f.name(t))
	}
	if err := f.use(other, otherKey); err != nil || f.name(t) != "other" {
		t.Errorf("other files: %v, serving %s", err, f.name(t))
	}
}

func TestNewProblems(t *testing.T) {
	cert, _ := pair(t, t.TempDir(), "one")
	_, key := pair(t, t.TempDir(), "two")
	for name, c := range map[string]TLS{
		"no file":          {CertFile: "/no/such/file", KeyFile: key},
		"another's key":    {CertFile: cert, KeyFile: key},
		"no CA file":       {ACME: &ACME{CacheDir: t.TempDir(), CAFile: "/no/such/file"}},
		"a CA file of key": {ACME: &ACME{CacheDir: t.TempDir(), CAFile: key}},
		"no cache":         {ACME: &ACME{CacheDir: key + "/x"}},
	} {
		if _, err := New(c, "claw.test", slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		domains []string
		host    string
		ok      bool
	}{
		{nil, "claw.test", true}, {nil, "alice.claw.test", true}, {nil, "evil.test", false}, {nil, "a.b.claw.test", false},
		{nil, "-x.claw.test", false}, {nil, "xclaw.test", false}, {nil, "alice.claw.test:80", true}, {nil, "", false},
		{nil, strings.Repeat("a", 41) + ".claw.test", false},
		{[]string{"alice.claw.test"}, "alice.claw.test", true}, {[]string{"alice.claw.test"}, "bob.claw.test", false},
	} {
		a := ACME{Domains: c.domains}
		if err := a.policy("claw.test")(t.Context(), c.host); (err == nil) != c.ok {
			t.Errorf("%v, %q: %v", c.domains, c.host, err)
		}
	}
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct{ host, port, to string }{
		{"alice.claw.test", "443", "https://alice.claw.test/x?y=1"},
		{"alice.claw.test:80", "8443", "https://alice.claw.test/x?y=1"},
		{"claw.test:8080", "8443", "https://claw.test:8443/x?y=1"},
		{"ALICE.claw.test.", "8443", "https://alice.claw.test/x?y=1"},
		{"evil.test", "443", ""},
		{"claw.test@evil.test", "443", ""},
	} {
		r := httptest.NewRequest("POST", "/x?y=1", nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		redirect("claw.test", c.port).ServeHTTP(w, r)
		want := http.StatusPermanentRedirect
		if c.to == "" {
			want = http.StatusMisdirectedRequest
		}
		if w.Code != want || w.Header().Get("Location") != c.to {
			t.Errorf("%s: %d to %q, want %d to %q", c.host, w.Code, w.Header().Get("Location"), want, c.to)
		}
	}
}

func TestConfig(t *testing.T) {
	cert, key := pair(t, t.TempDir(), "claw.test")
	f, err := New(TLS{CertFile: cert, KeyFile: key, MinVersion: tls.VersionTLS13}, "claw.test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = f.Config()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	for max, ok := range map[uint16]bool{tls.VersionTLS12: false, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: max, NextProtos: []string{"h2"}})
		if (err == nil) != ok {
			t.Errorf("%x: %v", max, err)
		}
		if err == nil {
			if p := conn.ConnectionState().NegotiatedProtocol; p != "h2" {
				t.Errorf("agreed on %q", p)
			}
			conn.Close()
		}
	}
}
