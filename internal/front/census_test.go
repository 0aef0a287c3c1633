package front

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"openclaw-sandbox/internal/forwarded"
)

// crowd is a server with a census; it hijacks what asks for it.
type crowd struct {
	*httptest.Server
	census *Census
	mu     sync.Mutex
	told   []string
	taken  chan net.Conn
}

func newCrowd(t *testing.T, b Bounds) *crowd {
	t.Helper()
	c := &crowd{taken: make(chan net.Conn, 1)}
	c.census = NewCensus(b, func(bound string, _ netip.Addr) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.told = append(c.told, bound)
	})
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/take" {
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		c.taken <- conn
	}))
	// httptest has a hook of its own, which Start wraps around this one.
	c.Config.ConnState = c.census.ConnState
	c.Start()
	t.Cleanup(c.Close)
	return c
}

// enter opens a connection that stays, and reports whether it may.
func (c *crowd) enter(t *testing.T, from, path string) (net.Conn, bool) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", c.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return conn, false
	}
	if path == "/take" {
		return conn, true
	}
	var b [1]byte
	_, err = conn.Read(b[:])
	return conn, err == nil
}

func (c *crowd) open(t *testing.T, want int) {
	t.Helper()
	eventually(t, "connections have gone", func() bool { return c.census.Open() == want })
}

func TestCensusByAddress(t *testing.T) {
	c := newCrowd(t, Bounds{ByAddress: 2, Exempt: forwarded.Trust{netip.MustParsePrefix("127.0.0.9/32")}})
	first, ok := c.enter(t, "127.0.0.2", "/")
	_, second := c.enter(t, "127.0.0.2", "/")
	_, third := c.enter(t, "127.0.0.2", "/")
	_, other := c.enter(t, "127.0.0.3", "/")
	if !ok || !second || third || !other {
		t.Fatalf("entered %t %t %t, another address %t; want the third refused", ok, second, third, other)
	}
	for range 3 {
		if _, ok := c.enter(t, "127.0.0.9", "/"); !ok {
			t.Error("a trusted proxy was refused")
		}
	}
	c.open(t, 6)
	first.Close()
	c.open(t, 5)
	if _, ok := c.enter(t, "127.0.0.2", "/"); !ok {
		t.Error("refused, though one has left")
	}
	if len(c.told) != 1 || c.told[0] != RefusedAddress {
		t.Errorf("told %v", c.told)
	}
}

func TestCensusTotal(t *testing.T) {
	c := newCrowd(t, Bounds{Total: 1})
	if _, ok := c.enter(t, "127.0.0.2", "/take"); !ok {
		t.Fatal("refused")
	}
	taken := <-c.taken
	if _, ok := c.enter(t, "127.0.0.3", "/"); ok {
		t.Error("a hijacked connection does not count")
	}
	c.census.Set(Bounds{Total: 2})
	if _, ok := c.enter(t, "127.0.0.3", "/"); !ok {
		t.Error("the new bound does not count")
	}
	c.census.Left(forwarded.Remote(taken))
	taken.Close()
	c.open(t, 1)
	if len(c.told) != 1 || c.told[0] != RefusedTotal {
		t.Errorf("told %v", c.told)
	}
}
