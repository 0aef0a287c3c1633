package main

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"openclaw-sandbox/test/rig"
)

// This program is also two of the processes that take part: the stub gateway, and
// the ReverseProxy among the peers.

// serveStub is the stub gateway on each of the addresses, separated by commas: each
// proxy has one of its own, so that none meets the ports that another used up.
func serveStub(addrs string) error {
	srv := &http.Server{Handler: rig.Gateway()}
	failed := make(chan error)
	for addr := range strings.SplitSeq(addrs, ",") {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		go func() { failed <- srv.Serve(l) }()
	}
	return <-failed
}

// buffers of the ReverseProxy.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return *b.pool.Get().(*[]byte) }
func (b *buffers) Put(x []byte) { b.pool.Put(&x) }

// serveReverseProxy is httputil.ReverseProxy with the settings that matter; pair is
// its address and the upstream's, with a comma between.
func serveReverseProxy(pair string) error {
	addr, upstream, _ := strings.Cut(pair, ",")
	to := &url.URL{Scheme: "http", Host: upstream}
	rp := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host; r.SetXForwarded() },
		FlushInterval: -1,
		BufferPool:    &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}},
		Transport: &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 512, IdleConnTimeout: time.Minute, DisableCompression: true,
			WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10},
	}
	return http.ListenAndServe(addr, rp)
}
