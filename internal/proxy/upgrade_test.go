package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/drain"
	"openclaw-sandbox/internal/http1/http1test"
)

const patience = 20 * time.Second

// talker hands the first request of each connection to talk, which answers byte for
// byte; the connection ends with it. It returns its address.
func talker(t *testing.T, talk func(conn *net.TCPConn, br *bufio.Reader, r *http.Request)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				br := bufio.NewReader(conn)
				if r, err := http.ReadRequest(br); err == nil {
					talk(conn.(*net.TCPConn), br, r)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// gateway answers each request with what answer writes, byte for byte, and echoes
// what comes then. It says what it was asked.
func gateway(t *testing.T, answer string) (Target, <-chan *http.Request) {
	t.Helper()
	asked := make(chan *http.Request, 10)
	addr := talker(t, func(conn *net.TCPConn, br *bufio.Reader, r *http.Request) {
		asked <- r
		io.WriteString(conn, answer)
		if strings.Contains(answer, " 101 ") {
			io.Copy(conn, br)
		}
	})
	return Target{User: "alice", Generation: "g1", Addr: addr}, asked
}

// ask sends a request for a WebSocket, and extra behind it.
func ask(t *testing.T, srv *http1test.Server, header, extra string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /ws/a%%2Fb?q=1;2 HTTP/1.1\r\nHost: alice.claw.test\r\nConnection: keep-alive, Upgrade, X-Hop\r\nUpgrade: WebSocket\r\n%s\r\n%s", header, extra)
	return conn, bufio.NewReader(conn)
}

const agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: abc\r\nKeep-Alive: timeout=5\r\n\r\n"

func TestUpgradeHeaders(t *testing.T) {
	target, asked := gateway(t, agreed)
	srv := front(t, Config{}, func() Target { return target })
	_, br := ask(t, srv, "Origin: http://alice.claw.test\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: p\r\nX-Hop: 1\r\nX-Forwarded-User: bob\r\nTE: trailers\r\n", "")
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	if h := resp.Header; h.Get("Sec-WebSocket-Accept") != "abc" || h.Get("Upgrade") != "websocket" || h.Get("Connection") != "Upgrade" || h.Get("Keep-Alive") != "" {
		t.Errorf("the client got %v", h)
	}
	r := <-asked
	for name, want := range map[string]string{"Origin": "http://alice.claw.test", "Sec-Websocket-Key": "k", "Sec-Websocket-Protocol": "p", "X-Hop": "",
		"X-Forwarded-User": "alice", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "alice.claw.test", "Connection": "Upgrade", "User-Agent": ""} {
		if got := strings.Join(r.Header.Values(name), ","); got != want {
			t.Errorf("the gateway got %s = %q, want %q", name, got, want)
		}
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Host != "alice.claw.test" || r.RequestURI != "/ws/a%2Fb?q=1;2" {
		t.Errorf("the gateway was asked for %q of %q, upgrade %q", r.RequestURI, r.Host, r.Header.Get("Upgrade"))
	}
}

// Neither side must wait for the other's bytes: both may send at once.
func TestUpgradeWithBytesBehindTheHeads(t *testing.T) {
	for name, behind := range map[string]string{"a few": "early", "more than buffers hold": strings.Repeat("early ", 50_000)} {
		t.Run(name, func(t *testing.T) {
			target, _ := gateway(t, "HTTP/1.1 100 Continue\r\n\r\n"+agreed+"hello")
			srv := front(t, Config{}, func() Target { return target })
			conn, br := ask(t, srv, "", behind)
			if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v, %v", resp, err)
			}
			io.WriteString(conn, "!")
			got := make([]byte, len("hello")+len(behind)+1)
			if _, err := io.ReadFull(br, got); err != nil || string(got) != "hello"+behind+"!" {
				t.Errorf("%.40q of %d bytes (%v)", got, len(got), err)
			}
		})
	}
}

func TestUpgradeRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer, base string
		status       int
		body         string
		location     string
	}{
		"with a length":  {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "", 403, "no", ""},
		"in chunks":      {"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "", 401, "no", ""},
		"until it ends":  {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nno", "", 200, "no", ""},
		"elsewhere":      {"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "/u/alice", 302, "", "/u/alice/x"},
		"no answer":      {"", "", 502, "down\n", ""},
		"not HTTP":       {"what?\r\n\r\n", "", 502, "down\n", ""},
		"other protocol": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "", 502, "down\n", ""},
		"only promises":  {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9), "", 502, "down\n", ""},
		"endless head":   {"HTTP/1.1 101 Switching Protocols\r\nX: " + strings.Repeat("x", maxHead), "", 502, "down\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			target, _ := gateway(t, c.answer)
			target.Base = c.base
			srv := front(t, Config{}, func() Target { return target })
			conn, br := ask(t, srv, "", "")
			for range 2 { // the client's connection stays
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				if resp.StatusCode != c.status || string(b) != c.body || resp.Header.Get("Location") != c.location || err != nil {
					t.Errorf("%d %q to %q (%v)", resp.StatusCode, b, resp.Header.Get("Location"), err)
				}
				fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: alice.claw.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			}
		})
	}
}

// A client that goes while the gateway thinks ends the request there.
func TestUpgradeClientGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	srv := front(t, Config{}, func() Target { return Target{User: "alice", Addr: l.Addr().String()} })
	client, _ := ask(t, srv, "", "")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the gateway's connection stays: %v", err)
	}
}

// The handler has returned, so that a drain has nothing to wait for, and still
// the WebSocket is told to connect elsewhere.
func TestUpgradeDrains(t *testing.T) {
	target, _ := gateway(t, agreed)
	p := New(Config{DialTimeout: 5 * time.Second, ForwardedClient: "192.0.2.1"}, slog.New(slog.DiscardHandler))
	defer p.Close()
	returned := make(chan struct{}, 1)
	d := drain.New()
	srv := http1test.NewServer(d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Forward(w, r, target)
		returned <- struct{}{}
	})))
	defer srv.Close()
	conn, br := ask(t, srv, "", "")
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	<-returned
	frame := []byte{0x81, 2, 'h', 'i'}
	conn.Write(frame)
	got := make([]byte, 4)
	if _, err := io.ReadFull(br, got); err != nil || string(got) != string(frame) {
		t.Fatalf("%q, %v", got, err)
	}
	if d.Open() != 1 || p.relay.Len() != 1 {
		t.Errorf("Open() = %d, relayed %d, want 1 and 1", d.Open(), p.relay.Len())
	}
	done := make(chan error, 1)
	go func() { done <- d.Run(srv.Config, 0, patience) }()
	rest, err := io.ReadAll(br)
	if want := string([]byte{0x88, 2, 0x03, 0xf4}); string(rest) != want || err != nil {
		t.Errorf("the client got %x (%v), want %x", rest, err, want)
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if d.Open() != 0 || p.relay.Len() != 0 {
		t.Errorf("Open() = %d, relayed %d after the end", d.Open(), p.relay.Len())
	}
}

func TestUpgradeEndsWithTheProxy(t *testing.T) {
	up := websocket.Upgrader{}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := up.Upgrade(w, r, nil); err == nil {
			conn.ReadMessage()
			conn.Close()
		}
	}))
	defer gateway.Close()
	p := New(Config{DialTimeout: 5 * time.Second, ForwardedClient: "192.0.2.1"}, slog.New(slog.DiscardHandler))
	srv := http1test.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.Forward(w, r, to("g1", gateway)()) }))
	defer srv.Close()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	p.Close()
	var timeout net.Error
	if _, _, err := conn.ReadMessage(); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the client read %v, want the end", err)
	}
}
