package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

const patience = 10 * time.Second // after which a test has failed

// gateway is a scripted one: script gets the number of the connection, from 1. The
// connection is closed when it returns.
func gateway(t *testing.T, script func(n int, c net.Conn, br *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				script(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// each answers every request of a connection with text.
func each(text string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			io.WriteString(c, text)
		}
	}
}

func client(o Options) *Client {
	o.Dial = (&net.Dialer{Timeout: patience}).DialContext
	if o.IdleTimeout == 0 {
		o.IdleTimeout = patience
	}
	if o.MaxHead == 0 {
		o.MaxHead = 64 << 10
	}
	if o.MaxIdle == 0 {
		o.MaxIdle = 4
	}
	return New(o)
}

// proxy is a server before addr; what Serve returns comes over the channel.
func proxy(t *testing.T, o Options, addr string) (*httptest.Server, *Pool, <-chan error) {
	t.Helper()
	p := client(o).Pool(addr)
	errs := make(chan error, 1000) // more than any test sends
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := http.Header{}
		EndToEnd(h, r.Header)
		err := p.Serve(w, r, h, nil)
		errs <- err
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}))
	t.Cleanup(func() { srv.Close(); p.Close() })
	return srv, p, errs
}

// do sends a request and returns the answer with its body read.
func do(t *testing.T, r *http.Request) (*http.Response, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := http.DefaultTransport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnswers(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 40_000)
	for name, c := range map[string]struct {
		method, answer string
		status         int
		body           string
		cut            bool  // the client must see that the answer is not whole
		err            error // of Serve
		reused         bool  // the connection serves the next request
		header         string
	}{
		"length":             {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false, nil, true, ""},
		"long":               {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 640000\r\n\r\n" + big, 200, big, false, nil, true, ""},
		"chunked":            {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", 200, "ok", false, nil, true, ""},
		"close-delimited":    {"GET", "HTTP/1.1 200 OK\r\n\r\nok", 200, "ok", false, nil, false, ""},
		"HTTP/1.0":           {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false, nil, false, ""},
		"Connection: close":  {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 200, "ok", false, nil, false, "Connection="},
		"hop-by-hop":         {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\r\nok", 200, "ok", false, nil, true, "Keep-Alive="},
		"named hop-by-hop":   {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n\r\nok", 200, "ok", false, nil, true, "X-Hop="},
		"two values":         {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nok", 200, "ok", false, nil, true, "X-A=1,2"},
		"CL and TE":          {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok", false, nil, true, "Content-Length=2"},
		"HEAD":               {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200, "", false, nil, true, "Content-Length=2"},
		"204":                {"GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", false, nil, true, ""},
		"304":                {"GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, "", false, nil, true, "Etag=\"x\""},
		"empty":              {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", false, nil, true, ""},
		"bytes nobody asked": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", 200, "ok", false, nil, false, ""},

		"cut length":        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nok", 200, "ok", true, nil, false, ""},
		"cut chunks":        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n", 200, "ok", true, nil, false, ""},
		"bad chunk":         {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\nzz\r\n", 200, "ok", true, nil, false, ""},
		"nothing":           {"POST", "", 502, "", false, io.ErrUnexpectedEOF, false, ""},
		"not HTTP":          {"GET", "SSH-2.0\r\n\r\n", 502, "", false, ErrMalformed, false, ""},
		"cut head":          {"GET", "HTTP/1.1 200 OK\r\nContent-", 502, "", false, ErrMalformed, false, ""},
		"HTTP/2.0":          {"GET", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false, ErrMalformed, false, ""},
		"status 099":        {"GET", "HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n", 502, "", false, ErrMalformed, false, ""},
		"101":               {"GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 502, "", false, ErrMalformed, false, ""},
		"space in a name":   {"GET", "HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 0\r\n\r\n", 502, "", false, ErrMalformed, false, ""},
		"NUL in a value":    {"GET", "HTTP/1.1 200 OK\r\nX-A: a\x00\r\nContent-Length: 0\r\n\r\n", 502, "", false, ErrMalformed, false, ""},
		"two lengths":       {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502, "", false, ErrMalformed, false, ""},
		"huge head":         {"GET", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", 502, "", false, ErrHeadTooLarge, false, ""},
		"endless interim":   {"GET", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 4000), 502, "", false, ErrHeadTooLarge, false, ""},
		"100 for no reason": {"GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false, nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conns := make(chan int, 10)
			addr := gateway(t, func(n int, conn net.Conn, br *bufio.Reader) {
				conns <- n
				for {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					if _, err := io.WriteString(conn, c.answer); err != nil {
						return
					}
					if !c.reused {
						conn.(*net.TCPConn).CloseWrite()
						io.Copy(io.Discard, br)
						return
					}
				}
			})
			srv, _, errs := proxy(t, Options{}, addr)
			for range 2 {
				resp, body, err := do(t, request(t, c.method, srv.URL, nil))
				if resp.StatusCode != c.status || c.err == nil && body != c.body {
					t.Errorf("%s %.300q, want %d %.300q", resp.Status, body, c.status, c.body)
				}
				if (err != nil) != c.cut {
					t.Errorf("the client sees %v, want cut = %t", err, c.cut)
				}
				if name, want, ok := strings.Cut(c.header, "="); ok && strings.Join(resp.Header.Values(name), ",") != want {
					t.Errorf("%s = %q, want %q", name, resp.Header.Values(name), want)
				}
				if !c.cut {
					if err := <-errs; !errors.Is(err, c.err) {
						t.Errorf("Serve: %v, want %v", err, c.err)
					}
				}
			}
			if reused := len(conns) == 1; reused != c.reused {
				t.Errorf("%d connections, want reuse = %t", len(conns), c.reused)
			}
		})
	}
}

func TestResponseTrailers(t *testing.T) {
	for name, announce := range map[string]string{"announced": "Trailer: X-Sum\r\n", "not announced": ""} {
		t.Run(name, func(t *testing.T) {
			srv, _, _ := proxy(t, Options{}, gateway(t, each("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"+announce+"\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: c\r\n\r\n")))
			resp, body, err := do(t, request(t, "GET", srv.URL, nil))
			if err != nil || body != "ok" || resp.Trailer.Get("X-Sum") != "1" || resp.Trailer.Get("Set-Cookie") != "" {
				t.Errorf("%q, %v, trailer %v", body, err, resp.Trailer)
			}
		})
	}
}

// Every piece passes as it comes, whatever the framing.
func TestPiecesPass(t *testing.T) {
	for name, c := range map[string]struct{ head, piece, end string }{
		"chunked": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\na\n\n\r\n", "0\r\n\r\n"},
		"length":  {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "a\n\n", ""},
		"close":   {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "a\n\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan struct{})
			srv, _, _ := proxy(t, Options{}, gateway(t, func(_ int, conn net.Conn, br *bufio.Reader) {
				http.ReadRequest(br)
				for _, piece := range []string{c.head, c.piece, c.piece + c.end} {
					io.WriteString(conn, piece)
					<-next
				}
			}))
			resp, err := http.DefaultTransport.RoundTrip(request(t, "GET", srv.URL, nil)) // hangs if the head was held back
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			for range 2 {
				next <- struct{}{}
				b := make([]byte, 3)
				if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "a\n\n" {
					t.Fatalf("%q, %v", b, err)
				}
			}
			close(next)
			if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
				t.Errorf("%q, %v at the end", rest, err)
			}
		})
	}
}
