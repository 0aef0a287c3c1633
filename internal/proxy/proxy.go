// Package proxy carries HTTP and WebSocket to one gateway. Connections are
// pooled per generation, so that a reused address and port never serves another
// user's gateway.
package proxy

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"openclaw-sandbox/internal/forwarded"
	"openclaw-sandbox/internal/relay"
	"openclaw-sandbox/internal/upstream"
)

// Config are the proxy's settings.
type Config struct {
	DialTimeout time.Duration
	// IdleTimeout of a pooled connection; shorter than the gateway's own (5 s), or
	// a request would now and then meet a connection that is just being closed.
	IdleTimeout time.Duration
	// HeadTimeout is how long a gateway may take from the end of a request to the
	// head of its answer; 0 is no limit. Upgrades do not have it.
	HeadTimeout time.Duration
	// ForwardedClient stands for a client on loopback: a gateway refuses a
	// loopback client address from its proxy.
	ForwardedClient string
	// Scheme is what browsers see: http or https.
	Scheme string
	// Active, if set, is told whenever a client does something: see Kind. It is
	// called from many goroutines, for a WebSocket once per frame of data, and must
	// return at once.
	Active func(user string, kind Kind)
	// Routine tells by the first bytes of a message from a WebSocket whether a page
	// sends it by itself: it is KindBackground then. Nil: none is.
	Routine func(head []byte) bool
	// Socket, if set, is told of each WebSocket when it opens and when it has ended. It
	// must return at once.
	Socket func(user string, open bool)
}

// Kind is what a client does.
type Kind uint8

// The kinds. Whoever forwards a request says which of the first three it is.
const (
	KindCall       Kind = iota // a program's request
	KindPage                   // a person opens a page
	KindBackground             // a page's own requests, which a forgotten tab sends, too
	// KindMessage is a frame of data that came over a WebSocket (RFC 6455 section 5.6),
	// not a ping, pong or close, and nothing that the gateway sends.
	KindMessage
)

// Target is the gateway that a request is for.
type Target struct {
	User       string // whom the gateway is told that it serves
	Generation string
	Addr       string // host:port
	// Base is the path below which the client sees the gateway, without a slash at
	// its end; the request has lost it already. "" is the root.
	Base string
	// Kind is what the request is; only Config.Active asks for it.
	Kind Kind
	// Anonymous: the gateway is not told whom it serves, so that it takes the request
	// for nobody's. User still says whose gateway it is.
	Anonymous bool
	// Aside: Addr is another port of the gateway's than its own, whose connections are
	// pooled apart.
	Aside bool
	// MaxSockets is how many upgraded connections the user may have; 0 for no limit.
	MaxSockets int
}

// vouched is whom the gateway is told that it serves.
func (t Target) vouched() string {
	if t.Anonymous {
		return ""
	}
	return t.User
}

// poolKey names the connections that t may use: a user's id has no slash.
func (t Target) poolKey() string {
	if t.Aside {
		return t.User + "/" + t.Addr
	}
	return t.User
}

// ErrTooManySockets is returned by Forward for an upgrade beyond Target.MaxSockets.
var ErrTooManySockets = errors.New("the user has as many open WebSockets as allowed")

// Unreached is a gateway that could not be connected to, or that has just died: the
// request may be sent again, there or elsewhere.
type Unreached struct {
	Err error
	// Sent: the gateway may have read the request, which was harmless (RFC 9110
	// section 9.2.2), and gave no byte of an answer. Otherwise nothing was sent.
	Sent bool
}

func (e *Unreached) Error() string { return e.Err.Error() }

// Unwrap is the connection's error.
func (e *Unreached) Unwrap() error { return e.Err }

// Proxy forwards requests; Close ends it. It is safe for concurrent use.
type Proxy struct {
	config  Config
	log     *slog.Logger
	buffers sync.Pool
	headers sync.Pool // of http.Header
	client  *upstream.Client
	readers sync.Pool // of *bufio.Reader
	relay   *relay.Relay

	mu      sync.Mutex          // guards what follows
	pools   map[string]*pool    // by Target.poolKey: the user
	sockets map[string]*sockets // by user: what is relayed
	held    map[string]int      // by user: upgrades under way and upgraded connections
}

// pool are the connections to a user's gateway, of one generation only.
type pool struct {
	user, generation, addr string
	exchanges              *upstream.Pool
	transport              *http.Transport // for upgrades
	used                   time.Time
}

const (
	bufferSize = 32 << 10
	// maxIdle connections are kept per gateway.
	maxIdle = 64
	// poolLife is how long an unused pool is kept.
	poolLife = time.Minute
	// maxHead bounds the size of a gateway's response head.
	maxHead = 256 << 10
	// keepAlive finds out about a node that vanished under an open connection.
	keepAlive = 30 * time.Second
)

// New returns a proxy.
func New(c Config, log *slog.Logger) *Proxy {
	p := &Proxy{config: c, log: log, pools: map[string]*pool{}, sockets: map[string]*sockets{}, held: map[string]int{},
		buffers: sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }},
		headers: sync.Pool{New: func() any { return http.Header{} }},
		readers: sync.Pool{New: func() any { return bufio.NewReader(nil) }},
		relay:   relay.New(relay.Options{KeepAlive: keepAlive}, log)}
	p.client = upstream.New(upstream.Options{Dial: p.Dial, IdleTimeout: c.IdleTimeout, HeadTimeout: c.HeadTimeout, MaxIdle: maxIdle, MaxHead: maxHead})
	return p
}

// Forward sends r to the target and its answer to w, streaming both ways. It
// returns when a WebSocket is open, which is then relayed without r and w: it ends
// with one of its sides, by a drain, or with the proxy.
//
// An error means that w has no answer yet: an *Unreached, ErrTooManySockets, an
// *http.MaxBytesError of the body's reader, or why the gateway gave none that can be
// passed on. It panics with http.ErrAbortHandler if the answer
// breaks off, or if the client has gone.
func (p *Proxy) Forward(w http.ResponseWriter, r *http.Request, t Target) error {
	p.Note(t.User, t.Kind)
	if !isUpgrade(r) {
		return p.exchange(w, r, t)
	}
	if !p.hold(t) {
		return ErrTooManySockets
	}
	relayed := func() bool { return false }
	defer func() {
		if !relayed() {
			p.release(t.User)
		}
	}()
	var failed error
	rp := &httputil.ReverseProxy{
		Transport:     p.pool(t).transport,
		FlushInterval: -1, // event streams pass as they come
		BufferPool:    p,
		ErrorLog:      slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(&url.URL{Scheme: "http", Host: t.Addr})
			pr.Out.Host = pr.In.Host                 // the gateway compares it with Origin
			pr.Out.URL.RawQuery = pr.In.URL.RawQuery // ReverseProxy drops what it can not parse
			p.SetIdentity(pr.Out.Header, pr.In, t.vouched())
			if t.Base != "" {
				plain(pr.Out)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, errRelayed) {
				return // the client has its answer
			}
			failed = err
		},
	}
	if t.Base != "" {
		rp.ModifyResponse = func(resp *http.Response) error { return rebase(resp, t.Base) }
	}
	if wantsWebSocket(r) {
		relayed = p.relayUpgrade(rp, w, t)
	}
	rp.ServeHTTP(w, r)
	if failed != nil && r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client is gone: see exchange
	}
	return failed
}

// Note tells Config.Active what the client of a user's sandbox does.
func (p *Proxy) Note(user string, kind Kind) {
	if p.config.Active != nil {
		p.config.Active(user, kind)
	}
}

// unreached tells what another try may mend, a node that is away or a port that is
// closed, from what is wrong here, as when there are no descriptors left.
func unreached(err error) bool {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return true
	}
	for _, of := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// SetIdentity removes from h whatever could claim an identity, an origin or a
// scope, and sets what the router vouches for: no user if that is "". in is the
// request as it came.
func (p *Proxy) SetIdentity(h http.Header, in *http.Request, user string) {
	for name := range h {
		if claims(name) {
			delete(h, name)
		}
	}
	scheme := forwarded.Scheme(in)
	if scheme == "" {
		scheme = p.config.Scheme
	}
	v := [...]string{p.clientIP(in.RemoteAddr), in.Host, scheme, user} // one allocation
	h["X-Forwarded-For"] = v[0:1:1]
	h["X-Forwarded-Host"] = v[1:2:2]
	h["X-Forwarded-Proto"] = v[2:3:3]
	if user != "" {
		h["X-Forwarded-User"] = v[3:4:4]
	}
}

// claims tells whether a header's name is one that only the router may set.
func claims(name string) bool {
	for _, prefix := range [...]string{"x-forwarded-", "x-openclaw-scopes", "tailscale-"} {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return true
		}
	}
	return strings.EqualFold(name, "forwarded") || strings.EqualFold(name, "x-real-ip")
}

func (p *Proxy) clientIP(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsLoopback() {
		return p.config.ForwardedClient
	}
	return host
}

// pool is the pool of t's generation. Another generation of the user closes the pool
// of the one before and ends its WebSockets; pools that nobody used for a while go.
func (p *Proxy) pool(t Target) *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	key := t.poolKey()
	if have, ok := p.pools[key]; ok && have.generation == t.Generation && have.addr == t.Addr {
		have.used = now
		return have
	}
	for k, old := range p.pools {
		if k == key || old.user == t.User && old.generation != t.Generation || now.Sub(old.used) > poolLife {
			old.close()
			delete(p.pools, k)
		}
	}
	made := &pool{user: t.User, generation: t.Generation, addr: t.Addr, used: now, exchanges: p.client.Pool(t.Addr), transport: &http.Transport{
		DialContext: p.Dial, MaxIdleConns: maxIdle, MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: p.config.IdleTimeout,
		DisableCompression: true, MaxResponseHeaderBytes: maxHead, WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10,
	}}
	p.pools[key] = made
	p.endOthers(t)
	return made
}

func (o *pool) close() {
	o.exchanges.Close()
	o.transport.CloseIdleConnections()
}

// Dial opens a connection to a gateway, for this proxy and for clients of the
// gateway's own protocol. Its error is an *Unreached if the gateway is at fault.
func (p *Proxy) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: p.config.DialTimeout, KeepAlive: keepAlive}).DialContext(ctx, network, addr)
	if err != nil && ctx.Err() == nil && unreached(err) {
		err = &Unreached{Err: err}
	}
	return conn, err
}

// Reach tells whether a gateway takes connections at addr (host:port).
func (p *Proxy) Reach(ctx context.Context, addr string) error {
	conn, err := p.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Answers tells whether the gateway at addr gives an answer. One that was frozen
// takes connections, and does not.
func (p *Proxy) Answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/healthz", nil)
	if err != nil {
		return err
	}
	t := &http.Transport{DialContext: p.Dial, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHead}
	resp, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// answerTimeout bounds one question of Answers; a gateway that was let go on took
// 0.1 to 0.2 s.
const answerTimeout = 5 * time.Second

// Close drops idle connections and ends WebSockets.
func (p *Proxy) Close() {
	p.relay.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, old := range p.pools {
		old.close()
		delete(p.pools, k)
	}
}

// Get and Put make p the ReverseProxy's buffer pool.
func (p *Proxy) Get() []byte { return *p.buffers.Get().(*[]byte) }

// Put takes a buffer back.
func (p *Proxy) Put(b []byte) { p.buffers.Put(&b) }
