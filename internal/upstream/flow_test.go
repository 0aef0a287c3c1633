package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestBodies(t *testing.T) {
	sum := func(_ int, c net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				return
			}
			text := fmt.Sprintf("%d %d %s", n, r.ContentLength, r.Trailer.Get("X-Sum"))
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}
	}
	srv, p, _ := proxy(t, Options{}, gateway(t, sum))
	for _, size := range []int{0, 1, 5000, 32 << 10, 1 << 20} {
		for _, known := range []bool{true, false} {
			r := request(t, "POST", srv.URL, strings.NewReader(strings.Repeat("x", size)))
			want := fmt.Sprintf("%d %d ", size, size)
			if !known {
				r.Body = io.NopCloser(r.Body)
				r.ContentLength = -1
				r.Trailer = http.Header{"X-Sum": {"7"}}
				want = fmt.Sprintf("%d -1 7", size)
			}
			if _, got, err := do(t, r); err != nil || got != want {
				t.Errorf("%d bytes, length known %t: the gateway got %q (%v), want %q", size, known, got, err, want)
			}
		}
	}
	if p.mu.Lock(); len(p.idle) != 1 {
		t.Errorf("%d idle connections, want one that served all", len(p.idle))
	}
	p.mu.Unlock()
}

// endless is a body that goes on until it is closed or its channel is.
type endless struct{ end chan struct{} }

func (e endless) Read(b []byte) (int, error) {
	select {
	case <-e.end:
		return 0, io.EOF
	default:
		return copy(b, "x"), nil
	}
}

// An answer before the end of the body reaches the client, whether the body goes on
// or stalls; neither connection is used again.
func TestEarlyAnswer(t *testing.T) {
	for name, body := range map[string]func() (io.Reader, func()){
		"goes on": func() (io.Reader, func()) { e := endless{make(chan struct{})}; return e, func() { close(e.end) } },
		"stalls":  func() (io.Reader, func()) { r, w := io.Pipe(); return r, func() { w.Close() } },
	} {
		t.Run(name, func(t *testing.T) {
			srv, p, errs := proxy(t, Options{}, gateway(t, func(_ int, c net.Conn, br *bufio.Reader) {
				http.ReadRequest(br)
				io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
				io.Copy(io.Discard, br) // until the proxy closes
			}))
			b, end := body()
			defer end()
			resp, text, err := do(t, request(t, "POST", srv.URL, b))
			if err != nil || resp.StatusCode != 413 || text != "no" || !resp.Close {
				t.Errorf("%s %q, %v, close = %t", resp.Status, text, err, resp.Close)
			}
			if err := <-errs; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if p.take() != nil {
				t.Error("the connection is kept")
			}
		})
	}
}

// Both ways at once: the gateway echoes each piece before the next one is sent.
func TestBothWays(t *testing.T) {
	srv, _, _ := proxy(t, Options{}, gateway(t, func(_ int, c net.Conn, br *bufio.Reader) {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
		io.Copy(c, r.Body)
	}))
	body, w := io.Pipe()
	resp, err := http.DefaultTransport.RoundTrip(request(t, "POST", srv.URL, body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, piece := range []string{"one", "two"} {
		io.WriteString(w, piece)
		b := make([]byte, 3)
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != piece {
			t.Fatalf("%q, %v, want %q", b, err, piece)
		}
	}
	w.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestExpect(t *testing.T) {
	for name, c := range map[string]struct {
		interim, answer string
		status          int
		asked           bool // the client was told to send
	}{
		"wanted":          {"HTTP/1.1 100 Continue\r\n\r\n", okAnswer, 200, true},
		"hint, wanted":    {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", okAnswer, 200, true},
		"refused":         {"", "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno", 417, false},
		"nothing is said": {"", okAnswer, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			wait := time.Hour // for ever
			if c.status == 200 && c.interim == "" {
				wait = time.Millisecond
			}
			srv, _, _ := proxy(t, Options{ContinueTimeout: wait}, gateway(t, func(_ int, conn net.Conn, br *bufio.Reader) {
				r, err := http.ReadRequest(br)
				if err != nil || r.Header.Get("Expect") != "100-continue" {
					t.Errorf("%v, %v", r, err)
					return
				}
				io.WriteString(conn, c.interim)
				if c.asked {
					if b, err := io.ReadAll(r.Body); err != nil || string(b) != "body" {
						t.Errorf("the gateway got %q, %v", b, err)
					}
				}
				io.WriteString(conn, c.answer)
				io.Copy(io.Discard, br)
			}))
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
			br := bufio.NewReader(conn)
			asked := 0
			for {
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode == 100 {
					asked++
					io.WriteString(conn, "body")
				}
				if resp.StatusCode >= 200 {
					if resp.StatusCode != c.status || resp.Close == c.asked {
						t.Errorf("%s, close = %t", resp.Status, resp.Close)
					}
					break
				}
			}
			if want := map[bool]int{true: 1}[c.asked]; asked != want {
				t.Errorf("asked %d times, want %d", asked, want)
			}
		})
	}
}

func TestEarlyHints(t *testing.T) {
	srv, _, _ := proxy(t, Options{}, gateway(t, each("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"+okAnswer)))
	r := request(t, "GET", srv.URL, nil)
	var hints []textproto.MIMEHeader
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == 103 {
			hints = append(hints, h)
		}
		return nil
	}}))
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if len(hints) != 1 || hints[0].Get("Link") != "</x>" || hints[0].Get("X-Hop") != "" || resp.Header.Get("Link") != "" {
		t.Errorf("hints %v, then %v", hints, resp.Header)
	}
}

// The client's body breaks off: the gateway must not take it for whole.
func TestBrokenBody(t *testing.T) {
	got := make(chan error, 1)
	srv, _, errs := proxy(t, Options{}, gateway(t, func(_ int, _ net.Conn, br *bufio.Reader) {
		r, err := http.ReadRequest(br)
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
		}
		got <- err
	}))
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf")
	conn.Close()
	if err := <-errs; err == nil {
		t.Error("Serve says nothing")
	}
	if err := <-got; err == nil {
		t.Error("the gateway took the part for the whole")
	}
}

// A client that goes away ends a blocked read, before and within the answer.
func TestGone(t *testing.T) {
	for name, start := range map[string]string{"before the head": "", "in the body": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"} {
		t.Run(name, func(t *testing.T) {
			ended, started := make(chan struct{}), make(chan struct{})
			srv, _, errs := proxy(t, Options{}, gateway(t, func(_ int, c net.Conn, br *bufio.Reader) {
				http.ReadRequest(br)
				io.WriteString(c, start)
				close(started)
				io.Copy(io.Discard, br)
				close(ended)
			}))
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-started; cancel() }()
			if resp, err := http.DefaultTransport.RoundTrip(request(t, "GET", srv.URL, nil).WithContext(ctx)); err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("the gateway's connection is still open")
			}
			if start == "" {
				if err := <-errs; !errors.Is(err, ErrGone) {
					t.Errorf("Serve: %v", err)
				}
			}
		})
	}
}

func TestHeadTimeout(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		var body io.Reader
		if method == "POST" {
			body = strings.NewReader("body")
		}
		var conns atomic.Int32
		srv, _, errs := proxy(t, Options{HeadTimeout: 20 * time.Millisecond}, gateway(t, func(_ int, _ net.Conn, br *bufio.Reader) {
			conns.Add(1)
			io.Copy(io.Discard, br)
		}))
		if resp, _, _ := do(t, request(t, method, srv.URL, body)); resp.StatusCode != 502 {
			t.Errorf("%s: %s", method, resp.Status)
		}
		if ne, ok := errors.AsType[net.Error](<-errs); !ok || !ne.Timeout() {
			t.Errorf("%s: no timeout", method)
		}
		if n := conns.Load(); n > 1 { // 0: it may be over before the gateway has seen it
			t.Errorf("%s was sent %d times", method, n)
		}
	}
}

// Many at once, with bodies both ways.
func TestConcurrent(t *testing.T) {
	srv, _, _ := proxy(t, Options{MaxIdle: 2}, gateway(t, func(_ int, c net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
		}
	}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 30 {
				want := strings.Repeat(fmt.Sprintf("%d/%d ", i, j), 1+j*97)
				resp, err := http.Post(srv.URL, "text/plain", strings.NewReader(want))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(got) != want {
					t.Errorf("%d/%d: %d bytes (%v), want %d", i, j, len(got), err, len(want))
				}
			}
		})
	}
	wg.Wait()
}
