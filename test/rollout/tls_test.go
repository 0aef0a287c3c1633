package rollout

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"testing"

	"openclaw-sandbox/internal/front/fronttest"
)

// A router that ends TLS passes Consul's check, and serves by it.
func TestReadyByTLS(t *testing.T) {
	s := start(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	roots := fronttest.Certify(t, certFile, keyFile, "", "*.localhost")
	s.deploy(t, "1", fmt.Sprintf("tls {\n cert_file = %q\n key_file = %q\n}\nredirect_listen = \"127.0.0.1:{{ env `NOMAD_PORT_redirect` }}\"\n", certFile, keyFile),
		map[string]any{"tls_name": user(0) + ".localhost"})
	b := startBalancer(t, s.consul.Client())
	eventually(t, "routers that pass", func() bool { return len(b.instances()) == routers })
	conn, err := tls.Dial("tcp", b.addr, &tls.Config{RootCAs: roots, ServerName: user(0) + ".localhost"})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
