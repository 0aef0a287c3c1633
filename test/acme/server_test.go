package acme

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/front/fronttest"
)

// server is a running ACME server.
type server struct {
	directory  string
	caFile     string // of its own certificate
	management string
}

// startServer starts one that comes to these ports of 127.0.0.1 for its challenges,
// whatever the host is called.
func startServer(t *testing.T, tlsPort, httpPort string) *server {
	t.Helper()
	bin, err := devcluster.Tool("pebble")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &server{caFile: filepath.Join(dir, "ca.pem")}
	keyFile := filepath.Join(dir, "key.pem")
	fronttest.Certify(t, s.caFile, keyFile, "", "127.0.0.1")
	ports, err := devcluster.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	listen, management := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])), net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]))
	s.directory, s.management = "https://"+listen+"/dir", "https://"+management
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{"listenAddress": listen, "managementListenAddress": management,
		"certificate": s.caFile, "privateKey": keyFile, "httpPort": number(httpPort), "tlsPort": number(tlsPort)}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	write(t, file, config)
	cmd := exec.Command(bin, "-config", file, "-dnsserver", nameServer(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if _, err := s.get(s.directory); err == nil {
			return s
		}
		if time.Now().After(end) {
			t.Fatal("the ACME server does not answer")
		}
	}
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *server) get(url string) ([]byte, error) {
	text, err := os.ReadFile(s.caFile)
	if err != nil {
		return nil, err
	}
	own := x509.NewCertPool()
	own.AppendCertsFromPEM(text)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: own}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: limit}).Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// roots are the authorities of what it issues.
func (s *server) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	text, err := s.get(s.management + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatalf("no root: %s", text)
	}
	return roots
}

// nameServer says of every name that it is at 127.0.0.1. It speaks TCP (RFC 1035
// section 4.2.2), as the ACME server does.
func nameServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(limit))
				answerName(conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// answerName answers one question.
func answerName(conn net.Conn) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	question := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, question); err != nil {
		return
	}
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return
	}
	m.Response, m.Additionals = true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	}
	if out, err := m.Pack(); err == nil {
		conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	}
}
