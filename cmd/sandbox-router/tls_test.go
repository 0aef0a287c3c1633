package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/http2"

	"openclaw-sandbox/internal/front/fronttest"
)

// certify writes a certificate for the router's names.
func certify(t *testing.T, certFile, keyFile, common string) *x509.CertPool {
	t.Helper()
	return fronttest.Certify(t, certFile, keyFile, common, "localhost", "*.localhost")
}

// TLS at the router: HTTP/2 for requests, HTTP/1.1 for WebSockets, the redirect, a new
// certificate by SIGHUP, and the drain.
func TestTLS(t *testing.T) {
	dir, redirect := t.TempDir(), freeAddr(t)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	roots := certify(t, certFile, keyFile, "first")
	p := startProgram(t, fmt.Sprintf("identity \"dev\" {}\nredirect_listen = %q\ntls {\n cert_file = %q\n key_file = %q\n}\n", redirect, certFile, keyFile))
	settings := &tls.Config{RootCAs: roots, ServerName: "alice.localhost"}

	h2 := &http.Transport{TLSClientConfig: settings.Clone(), ForceAttemptHTTP2: true}
	defer h2.CloseIdleConnections()
	ask := func(method, path string, body io.Reader) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, "https://"+p.listen+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "alice.localhost"
		resp, err := h2.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	if resp, body := ask("GET", "/chat", nil); resp.ProtoMajor != 2 || resp.StatusCode != 200 || !strings.Contains(body, "Control UI of alice") {
		t.Errorf("%s %s: %.80s", resp.Proto, resp.Status, body)
	}
	if resp, _ := ask("GET", "/chat", nil); resp.Header.Get("Strict-Transport-Security") == "" {
		t.Error("an answer over TLS lacks Strict-Transport-Security")
	}
	// Of no known length: HTTP/2 has no chunks, the gateway's HTTP/1.1 has.
	if resp, body := ask("POST", "/chat", struct{ io.Reader }{strings.NewReader("hello")}); resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("a body: %s %s: %.80s", resp.Proto, resp.Status, body)
	}

	// No extended CONNECT (RFC 8441), so that browsers open WebSockets by HTTP/1.1.
	if n, ok := setting(t, p.listen, settings, http2.SettingEnableConnectProtocol); ok && n != 0 {
		t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL is %d", n)
	}
	if n, ok := setting(t, p.listen, settings, http2.SettingMaxConcurrentStreams); !ok || n != maxStreams {
		t.Errorf("SETTINGS_MAX_CONCURRENT_STREAMS is %d, want %d", n, maxStreams)
	}
	d := websocket.Dialer{TLSClientConfig: settings.Clone()}
	conn, _, err := d.Dial("wss://"+p.listen+"/", http.Header{"Host": {"alice.localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, b, err := conn.ReadMessage(); err != nil || !strings.Contains(string(b), "connect.challenge") {
		t.Fatalf("%s, %v", b, err)
	}

	direct := &http.Transport{}
	defer direct.CloseIdleConnections()
	r, _ := http.NewRequest("GET", "http://"+redirect+"/x?y", nil)
	r.Host = "alice.localhost"
	resp, err := direct.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusPermanentRedirect || to != "https://alice.localhost/x?y" {
		t.Errorf("the plain listener: %s to %q", resp.Status, to)
	}

	certify(t, certFile, keyFile, "second")
	hangUp(t)
	p.eventually(t, "the new certificate", func() bool {
		c, err := tls.Dial("tcp", p.listen, &tls.Config{InsecureSkipVerify: true, ServerName: "alice.localhost"})
		if err != nil {
			return false
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName == "second"
	})

	p.stop()
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("at the end the client read %v, want close 1012", err)
	}
}

// setting is what the server tells of one of HTTP/2's settings.
func setting(t *testing.T, addr string, c *tls.Config, id http2.SettingID) (uint32, bool) {
	t.Helper()
	c = c.Clone()
	c.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", addr, c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			return s.Value(id)
		}
	}
}
