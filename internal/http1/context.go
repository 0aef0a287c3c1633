package http1

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// requestContext is the context of one request: it ends with the request, or when
// the client has gone. Until somebody waits for its end it holds nothing.
type requestContext struct {
	conn *conn

	mu    sync.Mutex // guards what follows
	done  chan struct{}
	over  bool
	after []*func()
}

// Deadline tells that there is none.
func (*requestContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done is closed at the end.
func (c *requestContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.over {
			close(c.done)
		}
	}
	return c.done
}

// Err is context.Canceled after the end.
func (c *requestContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return context.Canceled
	}
	return nil
}

// Value knows what net/http's server lets a context know.
func (c *requestContext) Value(key any) any {
	switch key {
	case http.ServerContextKey:
		return c.conn.server.rest
	case http.LocalAddrContextKey:
		return c.conn.tcp.LocalAddr()
	}
	return nil
}

// AfterFunc calls f in a goroutine of its own after the end, unless stop was called
// before and reported true. context.AfterFunc and the contexts below use it.
func (c *requestContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		go f()
		return func() bool { return false }
	}
	c.after = append(c.after, &f)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, have := range c.after {
			if have == &f {
				last := len(c.after) - 1
				c.after[i], c.after[last] = c.after[last], nil
				c.after = c.after[:last]
				return true
			}
		}
		return false
	}
}

// end ends it.
func (c *requestContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	if c.done != nil {
		close(c.done)
	}
	for _, f := range c.after {
		go (*f)()
	}
	c.after = nil
}
