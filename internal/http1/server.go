// Package http1 answers plain HTTP/1.1 requests at less cost than net/http's server,
// and leaves every other to it: what has a body, an upgrade, an expectation or TLS,
// what comes in pieces, and whatever is malformed, so that net/http alone judges that.
// A connection that was left to net/http stays there.
//
// A plain request costs one read and one write, no goroutine beside the connection's,
// and no timer: one goroutine looks after all connections four times a second.
package http1

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"openclaw-sandbox/internal/nonblock"
)

const (
	// lookEvery is how often connections are looked after: that late, at most, it is
	// noticed that a client has gone, or that a timeout is over.
	lookEvery = 250 * time.Millisecond
	// freshFor is how long a shutdown waits for a connection's first request, as
	// net/http's does.
	freshFor = 5 * time.Second
	// lingerFor is how long the end of a connection waits for the client's: to close
	// at once, with unread bytes in the kernel, could lose the answer.
	lingerFor = 500 * time.Millisecond
	// acceptPause bounds the pause after a failed accept, as when there are no
	// descriptors left.
	acceptPause = time.Second
)

// Server serves a listener for an http.Server. New makes it.
type Server struct {
	rest    *http.Server // what is not plain
	handler http.Handler
	state   func(net.Conn, http.ConnState)
	head    time.Duration
	idle    time.Duration
	pool    sync.Pool // of *exchange

	clock   atomic.Int64           // of the last look, in nanoseconds since start
	date    atomic.Pointer[[]byte] // the field, as of the last look
	closing atomic.Bool
	start   time.Time
	handed  queue

	mu       sync.Mutex // guards what follows
	listener net.Listener
	conns    map[*conn]bool
	given    bool       // Close was called: nobody waits for conns any more
	empty    *sync.Cond // signalled when conns has got empty, or given true
}

// New returns a server that takes its handler, ConnState, ReadHeaderTimeout,
// IdleTimeout and ErrorLog from s, and leaves to s what is not plain; s belongs to it
// from then on. ConnState hears of new, hijacked and closed connections only.
func New(s *http.Server) *Server {
	o := &Server{rest: s, handler: s.Handler, state: s.ConnState, head: s.ReadHeaderTimeout, idle: s.IdleTimeout,
		start: time.Now(), conns: map[*conn]bool{}, handed: queue{conns: make(chan net.Conn), closed: make(chan struct{})}}
	o.pool.New = func() any { return newExchange() }
	o.empty = sync.NewCond(&o.mu)
	if o.state == nil {
		o.state = func(net.Conn, http.ConnState) {}
	}
	s.Handler = unwrapping(s.Handler)
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if h, ok := c.(*handed); ok {
			if state == http.StateNew {
				return // it was told of
			}
			c = h.TCPConn
		}
		o.state(c, state)
	}
	o.look()
	return o
}

// Serve takes connections from l until Shutdown or Close, and then returns
// http.ErrServerClosed, or when l fails. It is called once.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
	s.handed.addr = l.Addr()
	if s.closing.Load() {
		l.Close()
		return http.ErrServerClosed
	}
	var beside sync.WaitGroup
	beside.Go(func() { s.rest.Serve(&s.handed) })
	over := make(chan struct{})
	beside.Go(func() {
		for tick := time.NewTicker(lookEvery); ; {
			select {
			case <-tick.C:
				s.look()
			case <-over:
				tick.Stop()
				return
			}
		}
	})
	err := s.accept(l)
	if err == http.ErrServerClosed {
		s.none() // they still want to be looked after
	} else {
		s.handed.Close()
	}
	close(over)
	beside.Wait()
	return err
}

func (s *Server) accept(l net.Listener) error {
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		if err == nil {
			pause = 0
			s.take(c)
			continue
		}
		if s.closing.Load() {
			return http.ErrServerClosed
		}
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Temporary() { // as net/http
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), acceptPause)
		s.logf("http: Accept error: %v; retrying in %v", err, pause)
		time.Sleep(pause)
	}
}

// take begins with a connection.
func (s *Server) take(nc net.Conn) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || !supported {
		s.handed.put(nc)
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		nc.Close()
		return
	}
	c := &conn{server: s, tcp: tcp, raw: raw, direct: nonblock.New(tcp), remote: tcp.RemoteAddr().String()}
	c.since.Store(s.clock.Load())
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.conns[c] = true
	s.mu.Unlock()
	s.state(tcp, http.StateNew)
	go c.serve()
}

// look looks after the connections: it ends those that were idle for too long, and
// requests whose client has gone.
func (s *Server) look() {
	now := time.Now()
	at := int64(now.Sub(s.start))
	s.clock.Store(at)
	date := append(now.UTC().AppendFormat([]byte("Date: "), http.TimeFormat), '\r', '\n')
	s.date.Store(&date)
	s.mu.Lock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.look(time.Duration(at))
	}
}

// forget is called for a connection that has ended, or is net/http's from now on.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 {
		s.empty.Broadcast()
	}
}

// none blocks until there is no connection, or nobody waits for them.
func (s *Server) none() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) > 0 && !s.given {
		s.empty.Wait()
	}
}

// stop lets no connection begin and no idle one go on.
func (s *Server) stop() error {
	s.closing.Store(true)
	s.rest.SetKeepAlivesEnabled(false) // this ends its idle ones, too
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.endIf(stateIdle)
	}
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// Shutdown is http.Server's: it takes no more connections, ends the idle ones, and
// waits for the others until ctx ends, whose error it returns then.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stop()
	gone := make(chan struct{})
	go func() { // ends with the last connection: at the latest when Close is called
		s.none()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, s.rest.Shutdown(ctx), s.handed.Close())
}

// Close ends all connections but hijacked ones, and does not wait for their handlers.
func (s *Server) Close() error {
	err := s.stop()
	s.mu.Lock()
	for c := range s.conns {
		c.tcp.Close()
		c.leave()
	}
	s.given = true
	s.empty.Broadcast()
	s.mu.Unlock()
	return errors.Join(err, s.rest.Close(), s.handed.Close())
}

func (s *Server) logf(format string, args ...any) {
	if s.rest.ErrorLog != nil {
		s.rest.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}
