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
)

// rawGateway records what it gets, byte by byte and per connection, and answers
// whatever net/http can read as a request.
type rawGateway struct {
	net.Listener
	wg  sync.WaitGroup
	mu  sync.Mutex
	got []string
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

// throughProxy sends raw through net/http's server and the proxy, and returns the
// statuses of the answers and what the gateway got.
func throughProxy(t *testing.T, raw string) (statuses []string, gateway []string) {
	t.Helper()
	g := newRawGateway(t)
	p := New(Config{DialTimeout: 5 * time.Second, IdleTimeout: 4 * time.Second, ForwardedClient: "192.0.2.1", Scheme: "http"}, slog.New(slog.DiscardHandler))
	srv := httptest.NewServer(forward(p, func() Target { return Target{User: "alice", Generation: "g1", Addr: g.Addr().String()} }))
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, raw) // a reset is no failure: the answer counts
	br := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error("the connection is still open")
			}
			break
		}
		io.Copy(io.Discard, resp.Body)
		statuses = append(statuses, resp.Status[:3])
	}
	srv.Close()
	p.Close()
	g.Close()
	g.wg.Wait()
	return statuses, g.got
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

const last = "Host: h\r\nConnection: close\r\n\r\n"

func TestWire(t *testing.T) {
	second := "GET /second HTTP/1.1\r\n" + last
	secondSent := sent("GET /second HTTP/1.1", "h", "")
	get := func(fields string) string { return "GET /x HTTP/1.1\r\n" + fields + last }
	post := func(fields, body string) string { return "POST /x HTTP/1.1\r\n" + fields + last + body }
	chunked := "Transfer-Encoding: chunked"
	postSent := func(body string, fields ...string) []string {
		return []string{sent("POST /x HTTP/1.1", "h", body, fields...)}
	}
	getSent := func(fields ...string) []string { return []string{sent("GET /x HTTP/1.1", "h", "", fields...)} }
	for name, c := range map[string]struct {
		raw, statuses string
		gateway       []string
	}{
		"plain":             {get("X-A: 1\r\n"), "200", getSent("X-A: 1")},
		"pipelined":         {"GET /x HTTP/1.1\r\nHost: h\r\n\r\n" + second, "200 200", []string{sent("GET /x HTTP/1.1", "h", "") + secondSent}},
		"body":              {post("Content-Length: 5\r\n", "hello"), "200", postSent("hello", "Content-Length: 5")},
		"empty body":        {post("Content-Length: 0\r\n", ""), "200", postSent("", "Content-Length: 0")},
		"GET with body":     {get("Content-Length: 5\r\n") + "hello", "200", []string{sent("GET /x HTTP/1.1", "h", "hello", "Content-Length: 5")}},
		"chunked":           {post(chunked+"\r\n", "5;ext=1\r\nhello\r\n0\r\n\r\n"), "200", postSent("5\r\nhello\r\n0\r\n\r\n", chunked)},
		"absolute form":     {"GET http://other:8080/x?a=b HTTP/1.1\r\n" + last, "200", []string{sent("GET /x?a=b HTTP/1.1", "other:8080", "")}},
		"target as it came": {"GET /a%2F..%2fb//c?q=1;2&%zz HTTP/1.1\r\n" + last, "200", []string{sent("GET /a%2F..%2fb//c?q=1;2&%zz HTTP/1.1", "h", "")}},
		"two slashes":       {"GET //other/x HTTP/1.1\r\n" + last, "200", []string{sent("GET //other/x HTTP/1.1", "h", "")}},
		"bare LF in head":   {"GET /x HTTP/1.1\nHost: h\nX-A: 1\nConnection: close\n\n", "200", getSent("X-A: 1")},
		"obs-fold":          {get("X-A: 1\r\n  2\r\n"), "200", getSent("X-A: 1 2")},

		// RFC 9112 section 6.3: Transfer-Encoding wins. net/http drops Content-Length before a
		// handler can see it; the gateway gets the one that counted.
		"CL and TE":              {"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n" + chunked + "\r\n\r\n0\r\n\r\n" + second, "200 200", []string{sent("POST /x HTTP/1.1", "h", "0\r\n\r\n", chunked) + secondSent}},
		"TE in HTTP/1.0":         {"POST /x HTTP/1.0\r\nHost: h\r\n" + chunked + "\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "200", postSent("", "Content-Length: 0")},
		"CL twice the same":      {post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), "200", postSent("hello", "Content-Length: 5")},
		"CL twice":               {post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), "400", nil},
		"CL list":                {post("Content-Length: 5, 5\r\n", "hello"), "400", nil},
		"CL signed":              {post("Content-Length: +5\r\n", "hello"), "400", nil},
		"CL negative":            {post("Content-Length: -1\r\n", ""), "400", nil},
		"CL empty":               {post("Content-Length:\r\n", ""), "400", nil},
		"CL hexadecimal":         {post("Content-Length: 0x5\r\n", "hello"), "400", nil},
		"TE chunked, identity":   {post(chunked+", identity\r\n", "0\r\n\r\n"), "501", nil},
		"TE identity":            {post("Transfer-Encoding: identity\r\n", ""), "501", nil},
		"TE twice":               {post(chunked+"\r\n"+chunked+"\r\n", "0\r\n\r\n"), "501", nil},
		"TE with a space":        {post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), "400", nil},
		"TE with a vertical tab": {post("Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"), "400", nil},
		"space in a name":        {get("X A: 1\r\n"), "400", nil},
		"space at the start":     {"GET /x HTTP/1.1\r\n X-A: 1\r\n" + last, "400", nil},
		"no name":                {get(": 1\r\n"), "400", nil},
		"NUL in a value":         {get("X-A: a\x00b\r\n"), "400", nil},
		"NUL in a name":          {get("X-\x00A: b\r\n"), "400", nil},
		"CR in a value":          {get("X-A: a\rb\r\n"), "400", nil},
		"CR in the target":       {"GET /a\rb HTTP/1.1\r\n" + last, "400", nil},
		"NUL in the target":      {"GET /a\x00 HTTP/1.1\r\n" + last, "400", nil},
		"space in the target":    {"GET /a b HTTP/1.1\r\n" + last, "400", nil},
		"opaque target":          {"GET other:x HTTP/1.1\r\n" + last, "400", nil},
		"authority as target":    {"GET other:80 HTTP/1.1\r\n" + last, "400", nil},
		"GET *":                  {"GET * HTTP/1.1\r\n" + last, "400", nil},
		"CONNECT":                {"CONNECT other:80 HTTP/1.1\r\n" + last, "405", nil},
		"TRACE":                  {"TRACE /x HTTP/1.1\r\n" + last, "405", nil},
		"no Host":                {"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n", "400", nil},
		"two Hosts":              {get("Host: other\r\n"), "400", nil},
		"Host with a slash":      {"GET /x HTTP/1.1\r\nHost: h/x\r\nConnection: close\r\n\r\n", "400", nil},
		"Host with a user":       {"GET /x HTTP/1.1\r\nHost: u@h\r\nConnection: close\r\n\r\n", "400", nil},
		"HTTP/2.0":               {"GET /x HTTP/2.0\r\n" + last, "505", nil},
		"huge head":              {get("X-A: " + strings.Repeat("a", 2<<20) + "\r\n"), "431", nil},

		"hop-by-hop":             {"GET /x HTTP/1.1\r\nHost: h\r\nX-Foo: 1\r\nX-Bar: 2\r\nKeep-Alive: 5\r\nUpgrade: x\r\nProxy-Authorization: x\r\nConnection: close, x-foo\r\n\r\n", "200", getSent("X-Bar: 2")},
		"Connection: identity":   {"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close, x-forwarded-user, host, X-Forwarded-For\r\n\r\n", "200", getSent()},
		"Connection: framing":    {"POST /x HTTP/1.1\r\nHost: h\r\nConnection: close, content-length, transfer-encoding\r\nContent-Length: 5\r\n\r\nhello", "200", postSent("hello", "Content-Length: 5")},
		"TE: trailers":           {get("TE: gzip, trailers;q=0.5\r\n"), "200", getSent("TE: trailers", "Connection: TE")},
		"TE: gzip":               {get("TE: gzip\r\n"), "200", getSent()},
		"trailers":               {post(chunked+"\r\nTrailer: X-Sum, X-Forwarded-User, Cookie\r\n", "1\r\na\r\n0\r\nX-Sum: 1\r\nX-Forwarded-User: bob\r\nCookie: c\r\nX-Other: 2\r\n\r\n"), "200", postSent("1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", chunked, "Trailer: X-Sum")},
		"forbidden trailer":      {post(chunked+"\r\nTrailer: Content-Length\r\n", "0\r\n\r\n"), "400", nil},
		"NUL in a trailer":       {post(chunked+"\r\nTrailer: X-Sum\r\n", "1\r\na\r\n0\r\nX-Sum: 1\x00\r\n\r\n"), "400", postSent("", chunked, "Trailer: X-Sum")},
		"chunk size":             {post(chunked+"\r\n", "zz\r\n"), "400", postSent("", chunked)},
		"chunk size signed":      {post(chunked+"\r\n", "+5\r\nhello\r\n0\r\n\r\n"), "400", postSent("", chunked)},
		"chunk size prefixed":    {post(chunked+"\r\n", "0x5\r\nhello\r\n0\r\n\r\n"), "400", postSent("", chunked)},
		"chunk size too big":     {post(chunked+"\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n"), "400", postSent("", chunked)},
		"chunk ends with LF":     {post(chunked+"\r\n", "5\nhello\r\n0\r\n\r\n"), "400", postSent("", chunked)},
		"chunk longer than told": {post(chunked+"\r\n", "1\r\naXX0\r\n\r\n"), "400", postSent("", chunked)},
	} {
		t.Run(name, func(t *testing.T) {
			statuses, gateway := throughProxy(t, c.raw)
			if got := strings.Join(statuses, " "); got != c.statuses {
				t.Errorf("statuses = %s, want %s", got, c.statuses)
			}
			for i := range gateway {
				gateway[i] = ordered(gateway[i])
			}
			if !slices.Equal(gateway, c.gateway) {
				t.Errorf("the gateway got\n%q, want\n%q", gateway, c.gateway)
			}
		})
	}
}
