package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// part is what came in at once, and when it may go on.
type part struct {
	due     time.Time
	content []byte
}

// inFlight is how many parts one direction may hold: enough that the delay never
// limits the bandwidth.
const inFlight = 4096

// slow serves what addr serves, with a delay on the way there and one on the way
// back. Only the way of bytes is longer: a connection opens at once.
func slow(addr string, each time.Duration) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			go pump(server.(*net.TCPConn), client.(*net.TCPConn), each)
			go pump(client.(*net.TCPConn), server.(*net.TCPConn), each)
		}
	}()
	return l, nil
}

// pump copies from src to dst, later.
func pump(dst, src *net.TCPConn, delay time.Duration) {
	parts := make(chan part, inFlight)
	go func() {
		defer close(parts)
		for {
			buf := make([]byte, 64<<10)
			n, err := src.Read(buf)
			if n > 0 {
				parts <- part{time.Now().Add(delay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	broken := false
	for p := range parts {
		time.Sleep(time.Until(p.due))
		if _, err := dst.Write(p.content); err != nil && !broken {
			broken = true
			src.Close()
		}
	}
	time.Sleep(delay)
	dst.CloseWrite() // may be closed already
}

// traffic is what went through a counter.
type traffic struct {
	reads, writes int   // requests: GET and HEAD; PUT, POST, DELETE and lists
	puts          int   // of the writes, PUT and POST
	up, down      int64 // bytes of bodies
}

// counter is a reverse proxy that counts. Nothing is timed through it.
type counter struct {
	*httptest.Server
	mu sync.Mutex
	n  traffic
}

func count(endpoint string) (*counter, error) {
	to, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	c := &counter{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256},
		ModifyResponse: func(r *http.Response) error {
			r.Body = &countedBody{r.Body, func(n int) { c.add(func(t *traffic) { t.down += int64(n) }) }}
			return nil
		},
	}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.add(func(t *traffic) {
			switch list := r.URL.Query().Has("list-type"); {
			case r.Method == http.MethodPut || r.Method == http.MethodPost:
				t.puts++
				t.writes++
			case r.Method == http.MethodDelete || list:
				t.writes++
			default:
				t.reads++
			}
		})
		if r.Body != http.NoBody {
			r.Body = &countedBody{r.Body, func(n int) { c.add(func(t *traffic) { t.up += int64(n) }) }}
		}
		proxy.ServeHTTP(w, r)
	}))
	return c, nil
}

func (c *counter) add(f func(*traffic)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.n)
}

// take returns what was counted since the last take.
func (c *counter) take() traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = traffic{}
	return n
}

type countedBody struct {
	io.ReadCloser
	count func(n int)
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(n)
	return n, err
}
