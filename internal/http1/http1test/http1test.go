// Package http1test is httptest for servers of package http1.
package http1test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"openclaw-sandbox/internal/http1"
)

// closeLimit is how long Close waits for requests.
const closeLimit = 5 * time.Second

// Server is an http1.Server on a port of this machine's loopback.
type Server struct {
	*http1.Server
	URL      string // http://host:port
	Listener net.Listener
	Config   *http.Server // of what is not plain
	serving  sync.WaitGroup
}

// NewServer starts a server. Its caller closes it.
func NewServer(h http.Handler) *Server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("http1test: " + err.Error()) // as httptest
	}
	s := &Server{URL: "http://" + l.Addr().String(), Listener: l, Config: &http.Server{Handler: h}}
	s.Server = http1.New(s.Config)
	s.serving.Go(func() { s.Serve(l) })
	return s
}

// Close lets requests end for a while, and then ends the server.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	s.Shutdown(ctx)
	s.Server.Close()
	s.serving.Wait()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// CloseClientConnections ends all connections at once.
func (s *Server) CloseClientConnections() { s.Server.Close() }
