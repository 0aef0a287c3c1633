// Package login_test logs in at a real OpenID Connect provider.
package login_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/audit"
	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/login"
	"openclaw-sandbox/internal/session"
)

// site is the router's part in front of the login, and the provider behind it.
type site struct {
	t    *testing.T
	port string
	addr string
	log  bytes.Buffer
}

func start(t *testing.T) *site {
	t.Helper()
	s := &site{t: t}
	srv := httptest.NewUnstartedServer(nil)
	s.addr = srv.Listener.Addr().String()
	_, s.port, _ = net.SplitHostPort(s.addr)
	keys, err := session.NewKeys(bytes.Repeat([]byte{7}, session.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&s.log, nil))
	l := login.New(login.Config{Domain: "claw.test", Scheme: "http", Issuer: provider(t, "http://claw.test:"+s.port+"/_sandbox/callback"),
		ClientID: "router", ClientSecret: "client-secret-of-the-test", Mapping: identity.Mapping{Claim: "sub"},
		Keys: keys, Lifetime: time.Hour, Timeout: 10 * time.Second, StartsPerMinute: 100}, log, audit.New(log))
	refuse := func(w http.ResponseWriter, _ *http.Request, status int, title, _ string) {
		http.Error(w, title, status)
	}
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.Serve(w, r, refuse) {
			return
		}
		c, err := identity.Any{l}.Identify(r)
		if err != nil {
			l.Begin(w, r, r.URL.RequestURI(), refuse)
			return
		}
		io.WriteString(w, "in: "+string(c.User)+" "+string(c.Role)+" "+r.RequestURI+" "+r.Header.Get("Cookie"))
	})
	srv.Start()
	t.Cleanup(srv.Close)
	return s
}

// provider starts oidc-provider and returns its issuer.
func provider(t *testing.T, redirect string) string {
	t.Helper()
	node, err := devcluster.Tool("node")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, node, "provider.mjs", port, redirect)
	cmd.Env = append(os.Environ(), "OIDC_PROVIDER="+filepath.Join(devcluster.CacheDir(), "oidc"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "listening" {
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process, which the cleanup waits for
			return "http://127.0.0.1:" + port
		}
	}
	cancel()
	_ = cmd.Wait()
	t.Fatalf("the provider did not start; run `tools/install --test`\n%s", stderr.String())
	return ""
}

// browser keeps cookies, and finds every name of ours at the test's server.
func (s *site) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(addr); strings.HasSuffix(host, "claw.test") {
			addr = s.addr
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	tr := &http.Transport{DialContext: dial}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: tr, Timeout: 20 * time.Second}
}

func (s *site) url(host, path string) string { return "http://" + host + ":" + s.port + path }

func (s *site) read(resp *http.Response, err error) (*http.Response, string) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(b)
}

var form = regexp.MustCompile(`action="([^"]+)"`)

// visit opens a page, and fills in the provider's forms on the way to it.
func (s *site) visit(b *http.Client, to, user string) (*http.Response, string) {
	s.t.Helper()
	resp, text := s.read(b.Get(to))
	for _, fields := range []url.Values{{"prompt": {"login"}, "login": {user}, "password": {"any"}}, {"prompt": {"consent"}}} {
		m := form.FindStringSubmatch(text)
		if m == nil {
			break
		}
		resp, text = s.read(b.PostForm(m[1], fields))
	}
	return resp, text
}

func TestLogin(t *testing.T) {
	s := start(t)
	alice := s.browser()
	resp, text := s.visit(alice, s.url("alice.claw.test", "/chat?session=a%2Fb"), "alice")
	if text != "in: alice user /chat?session=a%2Fb " {
		t.Fatalf("the deep link ended at %s: %q", resp.Request.URL, text)
	}
	for _, host := range []string{"alice.claw.test", "claw.test"} { // without the provider now
		if _, text := s.read(alice.Get(s.url(host, "/x"))); text != "in: alice user /x " {
			t.Errorf("the session does not hold at %s: %q", host, text)
		}
	}
	if resp, text := s.read(alice.Get(s.url("bob.claw.test", "/"))); resp.StatusCode != http.StatusForbidden {
		t.Errorf("alice entered bob's sandbox: %d %q", resp.StatusCode, text)
	}

	// Alice's cookie at bob's host, and in the hands of somebody else.
	home, _ := url.Parse(s.url("alice.claw.test", "/"))
	cookies := alice.Jar.Cookies(home)
	thief := s.browser()
	thief.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	other, _ := url.Parse(s.url("bob.claw.test", "/"))
	thief.Jar.SetCookies(other, cookies)
	if resp, _ := s.read(thief.Get(other.String())); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("alice's cookie is worth something at bob's host: %d", resp.StatusCode)
	}

	if _, text := s.read(alice.Post(s.url("alice.claw.test", "/_sandbox/logout"), "", nil)); text != "You are logged out.\n" {
		t.Errorf("logout: %q", text)
	}
	for _, host := range []string{"alice.claw.test", "claw.test"} {
		u, _ := url.Parse(s.url(host, "/"))
		if left := alice.Jar.Cookies(u); len(left) != 0 {
			t.Errorf("after the logout %s has %d cookies", host, len(left))
		}
	}
	if log := s.log.String(); !strings.Contains(log, "act=login ") || !strings.Contains(log, "act=logout") || strings.Contains(log, "client-secret") {
		t.Errorf("audit log:\n%s", log)
	}
}

// follow goes on until the next address begins with stop, which it does not open.
func (s *site) follow(b *http.Client, to, user, stop string) string {
	s.t.Helper()
	var stopped string
	b.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), stop) {
			stopped = r.URL.String()
			return http.ErrUseLastResponse
		}
		return nil
	}
	s.visit(b, to, user)
	b.CheckRedirect = nil
	if stopped == "" {
		s.t.Fatalf("never came to %s", stop)
	}
	return stopped
}

func TestStolenSteps(t *testing.T) {
	s := start(t)
	for name, step := range map[string]string{"callback": s.url("claw.test", "/_sandbox/callback"), "hand-over": s.url("alice.claw.test", "/_sandbox/enter")} {
		t.Run(name, func(t *testing.T) {
			alice := s.browser()
			address := s.follow(alice, s.url("alice.claw.test", "/"), "alice", step)
			if resp, _ := s.read(s.browser().Get(address)); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("another browser entered with it: %d", resp.StatusCode)
			}
			begun := s.browser() // has cookies of a login of its own
			s.read(begun.Get(s.url("alice.claw.test", "/")))
			if resp, _ := s.read(begun.Get(address)); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("another browser's login ended with it: %d", resp.StatusCode)
			}
			if resp, text := s.read(alice.Get(address)); resp.StatusCode != http.StatusOK {
				t.Errorf("the right browser: %d %q", resp.StatusCode, text)
			}
			if resp, _ := s.read(alice.Get(address)); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("replayed: %d", resp.StatusCode)
			}
		})
	}
	for _, path := range []string{"/_sandbox/login?for=evil.test", "/_sandbox/login?for=alice.claw.test.evil.test", "/_sandbox/login?for=alice.claw.test@evil.test", "/_sandbox/login?for=a.b.claw.test:" + s.port} {
		if resp, _ := s.read(s.browser().Get(s.url("claw.test", path))); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}
