package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openclaw-sandbox/internal/relay"
)

// wsFrame is a frame with any first byte (RFC 6455 section 5.2); mask "" is a
// server's.
func wsFrame(first byte, mask, payload string) string {
	b := []byte{first}
	masked := byte(0)
	if mask != "" {
		masked = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	b = append(b, mask...)
	out := append(b, payload...)
	if mask != "" {
		for i := range payload {
			out[len(b)+i] ^= mask[i%4]
		}
	}
	return string(out)
}

const mask = "\x01\x80\xff\x00"

// frames are rules of RFC 6455 about what passes between the two ends, in both
// directions, byte for byte: whether it may be sent is for the ends to judge.
var frames = []struct{ section, rule, frames string }{
	{"6455 5.1", "masks are kept", wsFrame(0x81, mask, "hello") + wsFrame(0x81, "\x00\x00\x00\x00", "hello")},
	{"6455 5.1", "a client's frame without a mask", wsFrame(0x81, "", "hello")},
	{"6455 5.2", "lengths of 7, 16 and 64 bits", wsFrame(0x82, mask, "") + wsFrame(0x82, mask, strings.Repeat("x", 125)) + wsFrame(0x82, mask, strings.Repeat("x", 126)) + wsFrame(0x82, mask, strings.Repeat("x", 65535)) + wsFrame(0x82, mask, strings.Repeat("x", 65536))},
	{"6455 5.2", "a length with more bytes than it needs", "\x82\xfe\x00\x01" + mask + "x" + "\x82\xff\x00\x00\x00\x00\x00\x00\x00\x01" + mask + "x"},
	{"6455 5.2", "reserved bits", wsFrame(0xf1, mask, "hello")},
	{"6455 5.2", "reserved opcodes", wsFrame(0x83, mask, "x") + wsFrame(0x87, mask, "x") + wsFrame(0x8b, mask, "x") + wsFrame(0x8f, mask, "x")},
	{"6455 5.4", "a message in fragments", wsFrame(0x01, mask, "he") + wsFrame(0x00, mask, "") + wsFrame(0x00, mask, "l") + wsFrame(0x80, mask, "lo")},
	{"6455 5.4", "control frames between fragments", wsFrame(0x01, mask, "he") + wsFrame(0x89, mask, "ping") + wsFrame(0x00, mask, "l") + wsFrame(0x8a, mask, "pong") + wsFrame(0x80, mask, "lo")},
	{"6455 5.4", "a continuation of nothing", wsFrame(0x80, mask, "x")},
	{"6455 5.4", "a message within another", wsFrame(0x01, mask, "a") + wsFrame(0x81, mask, "b")},
	{"6455 5.5", "a control frame of 125 bytes", wsFrame(0x89, mask, strings.Repeat("p", 125))},
	{"6455 5.5", "a control frame of 126 bytes", wsFrame(0x89, mask, strings.Repeat("p", 126))},
	{"6455 5.5", "a control frame in fragments", wsFrame(0x09, mask, "p") + wsFrame(0x80, mask, "q")},
	{"6455 5.5.2", "ping and pong, also unasked", wsFrame(0x89, mask, "") + wsFrame(0x8a, mask, "unasked") + wsFrame(0x89, mask, "\x00\xff")},
	{"6455 5.6", "text and binary", wsFrame(0x81, mask, "grüße") + wsFrame(0x82, mask, "\x00\xff\xfe")},
	{"6455 5.6", "text of 1 MB", wsFrame(0x81, mask, strings.Repeat("0123456789abcdef", 1<<16))},
	{"6455 5.6", "a message of 16 MB", wsFrame(0x82, mask, strings.Repeat("0123456789abcdef", 1<<20))},
	{"6455 7.1", "bytes after a close frame", wsFrame(0x88, mask, "\x03\xe8") + wsFrame(0x81, mask, "x")},
	{"6455 7.4", "close codes of any value, with a reason", wsFrame(0x88, mask, "\x03\xe8bye")},
	{"6455 7.4", "a close code of one byte", wsFrame(0x88, mask, "\x03")},
	{"6455 7.4.1", "a close code that may not be sent (1006)", wsFrame(0x88, mask, "\x03\xee")},
	{"6455 8.1", "text that is no UTF-8", wsFrame(0x81, mask, "\xce\xba\xe1\xbd\xb9\xcf\xff\xed\xa0\x80")},
}

// Frames pass as they are: from the client to the gateway, which echoes them, and
// back; in one piece and, if they are not large, byte by byte.
func TestFrames(t *testing.T) {
	target, asked := gateway(t, agreed)
	srv := front(t, Config{}, func() Target { return target })
	for _, c := range frames {
		t.Run(c.section+" "+c.rule, func(t *testing.T) {
			for _, piece := range []int{len(c.frames), 1, 7000} {
				if len(c.frames)/piece > 500 {
					continue
				}
				conn, br := ask(t, srv, "", "")
				if _, err := http.ReadResponse(br, nil); err != nil {
					t.Fatal(err)
				}
				<-asked
				go func() {
					for rest := c.frames; len(rest) > 0; {
						n := min(piece, len(rest))
						io.WriteString(conn, rest[:n])
						rest = rest[n:]
					}
					conn.(*net.TCPConn).CloseWrite()
				}()
				got, err := io.ReadAll(br) // to the end: the gateway's follows the client's
				if err != nil || string(got) != c.frames {
					t.Errorf("in pieces of %d: %d bytes came back (%v), want %d", piece, len(got), err, len(c.frames))
				}
			}
		})
	}
}

// Two ends of a well-kept library agree through the proxy on what they would agree
// on without it.
func TestEndsAgree(t *testing.T) {
	up := websocket.Upgrader{EnableCompression: true, Subprotocols: []string{"second", "first"}, CheckOrigin: func(*http.Request) bool { return true }}
	ended := make(chan error, 10)
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, b, err := conn.ReadMessage() // answers pings, and echoes close frames
			if err != nil {
				ended <- err
				return
			}
			conn.WriteMessage(kind, b)
		}
	}))
	defer gateway.Close()
	srv := front(t, Config{}, to("g1", gateway))
	dialer := websocket.Dialer{EnableCompression: true, Subprotocols: []string{"first", "second"}}
	for _, code := range []int{websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseUnsupportedData, websocket.CloseInvalidFramePayloadData, websocket.ClosePolicyViolation, websocket.CloseMessageTooBig, websocket.CloseServiceRestart, 3000, 4999} {
		conn, resp, err := dialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if !strings.Contains(resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate") || conn.Subprotocol() == "" {
			t.Fatalf("agreed on %q and %q", resp.Header.Get("Sec-WebSocket-Extensions"), conn.Subprotocol())
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		big := bytes.Repeat([]byte("compressible "), 100_000)
		conn.WriteMessage(websocket.TextMessage, big)
		if _, b, err := conn.ReadMessage(); err != nil || !bytes.Equal(b, big) {
			t.Fatalf("%d bytes (%v), want %d", len(b), err, len(big))
		}
		pong := ""
		conn.SetPongHandler(func(s string) error { pong = s; return nil })
		conn.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience))
		conn.WriteMessage(websocket.BinaryMessage, []byte{0})
		if _, _, err := conn.ReadMessage(); err != nil || pong != "are you there" {
			t.Errorf("pong %q, %v", pong, err)
		}
		conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "because"), time.Now().Add(patience))
		var close *websocket.CloseError
		if err := <-ended; !errors.As(err, &close) || close.Code != code || close.Text != "because" {
			t.Errorf("the gateway saw %v, want %d", err, code)
		}
		if _, _, err := conn.ReadMessage(); !errors.As(err, &close) || close.Code != code {
			t.Errorf("the client saw %v, want %d", err, code)
		}
	}
}

// The end of a connection passes as it is, with the last bytes before it.
func TestEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	srv := front(t, Config{}, func() Target { return Target{User: "alice", Generation: "g1", Addr: l.Addr().String()} })
	for name, end := range map[string]func(c *net.TCPConn){
		"FIN with the last bytes": func(c *net.TCPConn) { c.Write([]byte("last")); c.CloseWrite() },
		"FIN after them":          func(c *net.TCPConn) { c.Write([]byte("last")); c.Close() },
		"RST":                     func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
	} {
		for _, who := range []string{"client", "gateway"} {
			t.Run(who+" "+name, func(t *testing.T) {
				client, br := ask(t, srv, "", "")
				gateway, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer gateway.Close()
				gateway.SetDeadline(time.Now().Add(patience))
				if _, err := http.ReadRequest(bufio.NewReader(gateway)); err != nil {
					t.Fatal(err)
				}
				io.WriteString(gateway, agreed)
				if _, err := http.ReadResponse(br, nil); err != nil {
					t.Fatal(err)
				}
				from, to := client, io.Reader(gateway)
				if who == "gateway" {
					from, to = gateway, br
				}
				end(from.(*net.TCPConn))
				got, err := io.ReadAll(to)
				want := "last"
				if name == "RST" {
					want = ""
				}
				if string(got) != want || err != nil && name != "RST" {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
	}
}

// A reader that does not read holds the writer back: the proxy takes no more than
// relay.MaxPending bytes, and the kernel what its socket buffers hold.
func TestSlowReader(t *testing.T) {
	const message = 1 << 20
	most := 2*(kernel(t, "tcp_rmem")+kernel(t, "tcp_wmem")) + relay.MaxPending
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	srv := front(t, Config{}, func() Target { return Target{User: "alice", Generation: "g1", Addr: l.Addr().String()} })
	client, br := ask(t, srv, "", "")
	gateway, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	if _, err := http.ReadRequest(bufio.NewReader(gateway)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(gateway, agreed)
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	frame := []byte(wsFrame(0x82, "", strings.Repeat("x", message)))
	sent, at := 0, 0
	for {
		gateway.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := gateway.Write(frame[at:])
		sent, at = sent+n, (at+n)%len(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			break // nothing moves any more
		}
		if sent > most {
			t.Fatalf("%d bytes were taken, though nobody reads; want at most %d", sent, most)
		}
	}
	t.Logf("%d bytes were taken, %d are allowed", sent, most)
	// The other direction is open, and what was held comes whole.
	io.WriteString(client, "the other way")
	b := make([]byte, len("the other way"))
	gateway.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(gateway, b); err != nil || string(b) != "the other way" {
		t.Errorf("%q, %v", b, err)
	}
	gateway.(*net.TCPConn).CloseWrite()
	if n, err := io.Copy(io.Discard, br); err != nil || n != int64(sent) {
		t.Errorf("%d of %d bytes came: %v", n, sent, err)
	}
}

// kernel is the most that a socket buffer grows to (tcp(7)).
func kernel(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
	if err != nil {
		return 6 << 20 // not Linux; these are its defaults, rounded up
	}
	f := strings.Fields(string(b))
	n, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
