package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/internal/config"
	"openclaw-sandbox/internal/drain"
	"openclaw-sandbox/internal/front"
	"openclaw-sandbox/internal/http1"
)

// Bounds of HTTP/2 connections, which net/http leaves open-ended or generous.
const (
	maxStreams     = 100              // at once on a connection; RFC 9113 section 6.5.2 advises no less
	h2WriteTimeout = 30 * time.Second // without a byte taken by the client
	h2PingAfter    = 30 * time.Second // of silence
	h2PingTimeout  = 15 * time.Second // for the answer to a ping
)

// http2Config returns the bounds of HTTP/2 for clients' connections.
func http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: h2WriteTimeout, SendPingTimeout: h2PingAfter, PingTimeout: h2PingTimeout}
}

// listening is a server on its listener.
type listening struct {
	server   *http.Server
	listener net.Listener
	plain    *http1.Server // serves for server; nil with TLS
}

// run serves until the server is closed, by TLS if it is set up for it.
func (l *listening) run() error {
	switch {
	case l.plain != nil:
		return ignore(l.plain.Serve(l.listener), http.ErrServerClosed)
	case l.server.TLSConfig != nil:
		return ignore(l.server.ServeTLS(l.listener, "", ""), http.ErrServerClosed)
	}
	return ignore(l.server.Serve(l.listener), http.ErrServerClosed)
}

// drains is what ends the server.
func (l *listening) drains() drain.Server {
	if l.plain != nil {
		return l.plain
	}
	return l.server
}

// listeners are the router's: the one for its clients, and those beside.
type listeners struct {
	main   *listening
	beside []*listening
}

func (l *listeners) serve(g *errgroup.Group) {
	for _, one := range append([]*listening{l.main}, l.beside...) {
		g.Go(one.run)
	}
}

func (l *listeners) close() error {
	var all []error
	for _, one := range l.beside {
		all = append(all, one.server.Close())
	}
	return errors.Join(all...)
}

// listen opens all of c's listeners, or none.
func (s *server) listen(c config.Config) (_ *listeners, err error) {
	l := &listeners{}
	defer func() {
		if err != nil {
			for _, one := range append([]*listening{l.main}, l.beside...) {
				if one != nil {
					one.listener.Close()
				}
			}
		}
	}()
	open := func(setting, addr string, h http.Handler) (*listening, error) {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w; another process may use the port", setting, err)
		}
		return &listening{listener: listener, server: &http.Server{Handler: h, ReadHeaderTimeout: c.Client.HeadTimeout, IdleTimeout: c.Client.IdleTimeout, MaxHeaderBytes: c.Client.MaxHead,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}}, nil
	}
	if l.main, err = open("listen", c.Listen, s.draining.Handler(&s.handler)); err != nil {
		return nil, err
	}
	l.main.server.ConnState = s.census.ConnState
	if c.TLS != nil {
		if s.front, err = front.New(*c.TLS, c.Domain, s.log); err != nil {
			return nil, err
		}
		l.main.server.TLSConfig = s.front.Config()
		l.main.server.HTTP2 = http2Config()
	} else {
		l.main.plain = http1.New(l.main.server)
	}
	if c.RedirectListen != "" {
		_, port, err := net.SplitHostPort(l.main.listener.Addr().String())
		if err != nil {
			return nil, err
		}
		plain, err := open("redirect_listen", c.RedirectListen, s.front.Redirect(port))
		if err != nil {
			return nil, err
		}
		plain.server.ConnState = s.census.ConnState
		l.beside = append(l.beside, plain)
	}
	if c.MetricsListen != "" {
		metrics, err := open("metrics_listen", c.MetricsListen, s.metrics.handler())
		if err != nil {
			return nil, err
		}
		l.beside = append(l.beside, metrics)
	}
	return l, nil
}
