package proxy

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkProxy compares what forwarding costs: Forward, a tuned ReverseProxy that
// sets the same headers, and no proxy. Client and gateway are in this process and
// count alike in all three, so cpu-us/op less that of "direct" is what the proxy
// costs, with net/http's server in front of it.
func BenchmarkProxy(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"1KB", 1 << 10}, {"256KB", 256 << 10}} {
		addr := benchGateway(b, size.n)
		config := Config{DialTimeout: 5 * time.Second, IdleTimeout: 4 * time.Second, ForwardedClient: "192.0.2.1", Scheme: "http"}
		p := New(config, slog.New(slog.DiscardHandler))
		defer p.Close()
		tuned := &http.Transport{DialContext: p.Dial, MaxIdleConns: 512, MaxIdleConnsPerHost: 512, IdleConnTimeout: 4 * time.Second,
			DisableCompression: true, WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10}
		defer tuned.CloseIdleConnections()
		rp := &httputil.ReverseProxy{Transport: tuned, BufferPool: p, FlushInterval: -1, Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(&url.URL{Scheme: "http", Host: addr})
			pr.Out.Host = pr.In.Host
			p.SetIdentity(pr.Out.Header, pr.In, "alice")
		}}
		t := Target{User: "alice", Generation: "g1", Addr: addr}
		for _, c := range []struct {
			name    string
			handler http.Handler
		}{
			{"direct", nil},
			{"reverseproxy", rp},
			{"forward", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.Forward(w, r, t) })},
		} {
			b.Run(size.name+"/"+c.name, func(b *testing.B) {
				to := addr
				if c.handler != nil {
					srv := httptest.NewServer(c.handler)
					defer srv.Close()
					to = srv.Listener.Addr().String()
				}
				load(b, to, size.n)
			})
		}
	}
}

// benchGateway answers with n bytes, in one write, and looks at nothing but the
// end of a request's head.
func benchGateway(b *testing.B, n int) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(n) +
		"\r\nDate: Mon, 01 Jan 2029 00:00:00 GMT\r\nCache-Control: no-store\r\nEtag: \"abc\"\r\n\r\n" + strings.Repeat("x", n))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for skipHead(br) == nil {
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// load sends b.N requests over 16 connections and reads the answers.
func load(b *testing.B, addr string, n int) {
	request := []byte("GET /assets/index.js?v=1 HTTP/1.1\r\nHost: alice.example.com\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n" +
		"Accept-Encoding: gzip\r\nAccept-Language: en\r\nCookie: session=0123456789abcdef\r\n\r\n")
	b.ReportAllocs()
	b.SetParallelism(8)
	begin := cpu(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		br := bufio.NewReaderSize(c, 16<<10)
		for pb.Next() {
			if _, err := c.Write(request); err != nil {
				b.Error(err)
				return
			}
			err := skipHead(br)
			if err == nil {
				_, err = br.Discard(n)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-begin).Microseconds())/float64(b.N), "cpu-us/op")
}

func skipHead(br *bufio.Reader) error {
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			return nil
		}
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
