package proxy

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openclaw-sandbox/internal/http1/http1test"
)

// rawGateway records what it gets, byte by byte and per connection, and answers
// whatever net/http can read as a request.
type rawGateway struct {
	net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
	got   []string
}

// hangUp ends the connections that the proxy still holds.
func (g *rawGateway) hangUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		c.(*net.TCPConn).CloseRead()
	}
}

func newRawGateway(t *testing.T) *rawGateway {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &rawGateway{Listener: l}
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.mu.Lock()
			g.conns = append(g.conns, c)
			g.mu.Unlock()
			g.wg.Go(func() { g.serve(c) })
		}
	})
	return g
}

func (g *rawGateway) serve(c net.Conn) {
	defer c.Close()
	var raw bytes.Buffer
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.got = append(g.got, raw.String())
	}()
	br := bufio.NewReader(io.TeeReader(c, &raw))
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// breaksOff ends what a client sends, though more was promised.
const breaksOff = "<the end>"

// fronts are the servers that may stand in front of the proxy: the router's own, and
// net/http's, which it has with TLS.
var fronts = []struct {
	name  string
	serve func(t *testing.T, h http.Handler) net.Addr
}{
	{"http1", func(t *testing.T, h http.Handler) net.Addr {
		srv := http1test.NewServer(h)
		t.Cleanup(srv.Close)
		return srv.Listener.Addr()
	}},
	{"net/http", func(t *testing.T, h http.Handler) net.Addr {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		return srv.Listener.Addr()
	}},
}

// through sends raw through a server and the proxy, and returns what comes back until
// the connection ends.
func through(t *testing.T, serve func(*testing.T, http.Handler) net.Addr, raw, addr string) string {
	t.Helper()
	p := New(Config{DialTimeout: 5 * time.Second, IdleTimeout: 4 * time.Second, ForwardedClient: "192.0.2.1", Scheme: "http"}, slog.New(slog.DiscardHandler))
	t.Cleanup(p.Close)
	front := serve(t, forward(p, func() Target { return Target{User: "alice", Generation: "g1", Addr: addr} }))
	c, err := net.Dial("tcp", front.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	raw, end := strings.CutSuffix(raw, breaksOff)
	io.WriteString(c, raw) // a reset is no failure: the answer counts
	if end {
		c.(*net.TCPConn).CloseWrite()
	}
	b, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("the connection is still open")
	}
	return string(b)
}

// statuses are those of the answers in raw.
func statuses(raw string) string {
	var out []string
	for br := bufio.NewReader(strings.NewReader(raw)); ; {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return strings.Join(out, " ")
		}
		if out = append(out, resp.Status[:3]); resp.StatusCode >= 200 {
			io.Copy(io.Discard, resp.Body)
		}
	}
}

// sent is a request as the gateway is to get it: with what the router adds, its
// fields in order of the alphabet, for they come in any.
func sent(line, host, body string, fields ...string) string {
	fields = append(fields, "Host: "+host, "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: "+host, "X-Forwarded-Proto: http", "X-Forwarded-User: alice")
	slices.Sort(fields)
	return line + "\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n" + body
}

// ordered sorts the fields of each request's head in raw.
func ordered(raw string) string {
	head, rest, ok := strings.Cut(raw, "\r\n\r\n")
	if !ok || !strings.Contains(head, " HTTP/1.1\r\n") {
		return raw
	}
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines[1:])
	// another request's head may follow the body
	if at := strings.Index(rest, "GET "); at >= 0 {
		rest = rest[:at] + ordered(rest[at:])
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + rest
}
