package rollout

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A router that ends TLS passes Consul's check, and serves by it.
func TestReadyByTLS(t *testing.T) {
	s := start(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	roots.AppendCertsFromPEM(text)
	for file, b := range map[string][]byte{certFile: text, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
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
