package http1

import (
	"bufio"
	"net"
	"net/http"
	"sync"
)

// queue is the listener from which net/http gets what is not plain.
type queue struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// put gives a connection to net/http, or closes it if nobody takes it any more, and
// reports which.
func (q *queue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.closed:
		c.Close()
		return false
	}
}

// Accept returns the next connection.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the queue.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr is the real listener's.
func (q *queue) Addr() net.Addr { return q.addr }

// handed is a connection of which something was read.
type handed struct {
	*net.TCPConn
	mu   sync.Mutex // net/http reads in one goroutine and hijacks in another
	read []byte     // at most inSize, which net/http's reader takes at once
}

// Read gives back what was read first.
func (h *handed) Read(b []byte) (int, error) {
	h.mu.Lock()
	if len(h.read) > 0 {
		n := copy(b, h.read)
		if h.read = h.read[n:]; len(h.read) == 0 {
			h.read = nil
		}
		h.mu.Unlock()
		return n, nil
	}
	h.mu.Unlock()
	return h.TCPConn.Read(b)
}

// unwrapping lets who hijacks for an upgrade have the connection itself: whoever moves
// its bytes by the descriptor needs a *net.TCPConn. Other requests keep net/http's own
// writer, which http.MaxBytesReader tells to let a client read the answer.
func unwrapping(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Upgrade"]) > 0 {
			w = &hijackable{w}
		}
		next.ServeHTTP(w, r)
	})
}

type hijackable struct{ http.ResponseWriter }

// Unwrap lets http.ResponseController reach the real writer.
func (w *hijackable) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush is for who does not use http.ResponseController.
func (w *hijackable) Flush() { http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack returns the connection without its wrapper, which net/http has emptied.
func (w *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if h, ok := c.(*handed); ok && err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.read) == 0 {
			c = h.TCPConn
		}
	}
	return c, rw, err
}
