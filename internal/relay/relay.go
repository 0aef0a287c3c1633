// Package relay moves the bytes of upgraded connections between clients and
// gateways. Most of them are idle most of the time, so that an idle pair costs a
// few hundred bytes: on Linux its two sockets are parked in an epoll loop, with
// no goroutine and no buffer; elsewhere, and for connections that are not plain
// TCP, two goroutines copy.
package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// MaxPending is how many bytes one direction of a pair holds at most, besides
// those that were handed to Start, while its receiver does not read. The kernel's
// socket buffers come on top.
const MaxPending = 64 << 10

// closeWait bounds what the end of a pair by CloseWith may take: the client may
// not read, the frame that is on its way may never end, and the client may not
// answer.
const closeWait = time.Second

// Options are a relay's settings; the zero value of each means its default.
type Options struct {
	// KeepAlive is how long a connection is silent before it is probed, and the
	// time between probes; after three without an answer the pair ends. Default:
	// 30 s. Less than 0 leaves the connections as they are. (tcp(7), TCP_KEEPIDLE,
	// TCP_KEEPINTVL and TCP_KEEPCNT; whole seconds.)
	KeepAlive time.Duration
	// UserTimeout is how long sent bytes may stay unacknowledged (tcp(7),
	// TCP_USER_TIMEOUT; Linux). Linux counts a receiver that answers but whose
	// window stays closed for so long, too: it is also how long a client may
	// refuse to read. Default: 2 min. Less than 0 leaves the kernel's rules, about
	// 15 min.
	UserTimeout time.Duration
	// Loops is the number of epoll loops. Default: GOMAXPROCS.
	Loops int

	goroutines bool          // for tests: park nothing
	closeWait  time.Duration // for tests: less than closeWait
}

func (o *Options) defaults() {
	if o.KeepAlive == 0 {
		o.KeepAlive = 30 * time.Second
	}
	if o.UserTimeout == 0 {
		o.UserTimeout = 2 * time.Minute
	}
	if o.closeWait == 0 {
		o.closeWait = closeWait
	}
	if o.Loops <= 0 {
		o.Loops = runtime.GOMAXPROCS(0)
	}
}

// Pair are two connections that have both switched to WebSocket (RFC 6455).
type Pair struct {
	Client, Upstream net.Conn
	// FromClient and FromUpstream were read already and go first; Start copies them.
	FromClient, FromUpstream []byte
	// Activity, if set, is called when a data frame came from the client, not for ping,
	// pong and close, with the first bytes of its payload: as many as came at once, Head
	// at most, and perhaps none. It must return at once, and not keep them.
	Activity func(head []byte)
	// Done, if set, is called exactly once, when both connections are closed, with
	// why: nil if both sides ended theirs, else ErrClosed or an *Error. It must
	// return at once and must not call Relay.Close. It may be called before Start
	// has returned.
	Done func(error)
}

func (p *Pair) done(err error) {
	if p.Done != nil {
		p.Done(err)
	}
}

// Session is a pair that is being relayed. Its methods return at once, may be
// called at any time and do nothing once the pair has ended.
type Session interface {
	// Close closes both connections.
	Close()
	// CloseWith sends the client a close frame (RFC 6455 section 7.4 lists the
	// codes; a reason is at most 123 bytes, the rest is cut off) when the frame that
	// the gateway is sending has ended, and closes both connections when the client
	// has closed its own, or after a second.
	CloseWith(code uint16, reason string)
}

// ErrClosed is the end of a pair by Session.Close, Session.CloseWith or Relay.Close.
var ErrClosed = errors.New("the relay closed the connections")

// Side is one end of a pair.
type Side uint8

// The sides of a pair.
const (
	Client Side = iota
	Upstream
)

func (s Side) String() string { return [...]string{"client", "gateway"}[s] }

// Error is a failure of one of a pair's connections.
type Error struct {
	Side Side
	Op   string // read, write or park
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s the %s's connection: %v", e.Op, e.Side, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Relay owns pairs of connections. It is safe for concurrent use.
type Relay struct {
	options Options
	log     *slog.Logger
	open    atomic.Int64
	buffers sync.Pool // of *[MaxPending]byte
	idle    sync.Pool // of *[idleBuffer]byte
	parking parking   // nil where nothing can be parked
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	copies map[*copied]bool
}

// parking is the way to relay without goroutines.
type parking interface {
	// park takes a pair over, unless it is not fit for it.
	park(Pair) (Session, bool)
	close() // ends what is parked, not waiting for it
}

// New returns a relay; its owner must Close it. Where no epoll loop can be had, it
// says so and relays with goroutines.
func New(o Options, log *slog.Logger) *Relay {
	o.defaults()
	r := &Relay{options: o, log: log, copies: map[*copied]bool{},
		buffers: sync.Pool{New: func() any { return new([MaxPending]byte) }},
		idle:    sync.Pool{New: func() any { return new([idleBuffer]byte) }}}
	if !o.goroutines {
		var err error
		if r.parking, err = newParking(r); err != nil {
			log.Warn("WebSockets are relayed by goroutines, at a higher cost", "error", err)
		}
	}
	return r
}

// Start takes both connections over and relays between them; it returns at once
// and never fails: what goes wrong is told to p.Done.
func (r *Relay) Start(p Pair) Session {
	r.open.Add(1)
	if r.parking != nil {
		if s, ok := r.parking.park(p); ok {
			return s
		}
	}
	return r.copy(p)
}

// Len is the number of open pairs.
func (r *Relay) Len() int { return int(r.open.Load()) }

// Close ends all pairs, and those that are started later at once. It returns when
// every Done was called and every goroutine has ended.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	for c := range r.copies {
		c.fail(ErrClosed)
	}
	r.mu.Unlock()
	if r.parking != nil {
		r.parking.close()
	}
	r.running.Wait()
}
