package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"openclaw-sandbox/internal/relay"
	"openclaw-sandbox/internal/upstream"
)

// errRelayed stops the ReverseProxy, which would copy an upgraded connection
// itself, with two goroutines and buffers for as long as it is open.
var errRelayed = errors.New("the connection is relayed")

// hops are the header fields of a 101 that concern the gateway's connection only
// (RFC 9110 section 7.6.1); Connection and Upgrade are set anew.
var hops = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Content-Length"}

// maxInformal is how many informational answers may come before the real one, as
// for net/http's client.
const maxInformal = 5

// wantsWebSocket tells whether r asks for one (RFC 6455 section 4.1). What asks for
// another protocol, or comes with a body, is for the ReverseProxy.
func wantsWebSocket(r *http.Request) bool {
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ContentLength != 0 || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return false
	}
	for _, line := range r.Header.Values("Connection") {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// handover is a hijacked connection that somebody keeps track of (drain.Drain).
type handover interface {
	HandOver(start func(raw net.Conn, done func()) (restart func())) bool
}

// restartCode tells a client to connect again (IANA's registry of WebSocket close
// codes: 1012, service restart).
const restartCode = 1012

// upgrade is one request for a WebSocket. It dials the gateway for itself, since
// the connection is not one to be used again, and hijacks the client's only when
// the gateway has agreed: another answer is an ordinary one.
type upgrade struct {
	proxy  *Proxy
	w      http.ResponseWriter
	target Target

	conn   net.Conn // to the gateway, until the relay has it
	reader *bufio.Reader
	free   func() bool // ends the watch on the client's going

	relayed bool // the relay has both connections
}

// relayUpgrade makes rp, which knows the rules for headers, errors and ordinary
// answers, hand an upgraded connection to the relay. It returns what tells, after
// rp has served, whether that happened.
func (p *Proxy) relayUpgrade(rp *httputil.ReverseProxy, w http.ResponseWriter, t Target) (relayed func() bool) {
	u := &upgrade{proxy: p, w: w, target: t}
	rp.Transport = u
	ordinary := rp.ModifyResponse
	rp.ModifyResponse = func(resp *http.Response) error {
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return u.relay(resp)
		}
		if ordinary == nil {
			return nil
		}
		return ordinary(resp)
	}
	return func() bool { return u.relayed }
}

// RoundTrip asks the gateway. It is the ReverseProxy's transport.
func (u *upgrade) RoundTrip(r *http.Request) (*http.Response, error) {
	conn, err := u.proxy.Dial(r.Context(), "tcp", r.URL.Host)
	if err != nil {
		return nil, err
	}
	u.conn, u.free = conn, context.AfterFunc(r.Context(), func() { conn.SetDeadline(time.Unix(1, 0)) })
	u.reader = u.proxy.readers.Get().(*bufio.Reader)
	limited := &io.LimitedReader{R: conn, N: maxHead}
	u.reader.Reset(limited)
	resp, err := u.ask(r)
	if err != nil {
		if ne, ok := errors.AsType[net.Error](err); limited.N == maxHead && !(ok && ne.Timeout()) {
			err = &Unreached{Err: err, Sent: true} // wantsWebSocket: a GET without a body
		}
		u.close()
		return nil, err
	}
	limited.N = math.MaxInt64
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = answerBody{resp.Body, u}
	}
	return resp, nil
}

func (u *upgrade) ask(r *http.Request) (*http.Response, error) {
	if err := r.Write(u.conn); err != nil { // buffers, and flushes at its end
		return nil, fmt.Errorf("ask the gateway for a WebSocket: %w", err)
	}
	for range maxInformal + 1 {
		resp, err := http.ReadResponse(u.reader, r)
		if err != nil {
			return nil, fmt.Errorf("read the gateway's answer: %w", err)
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, errors.New("the gateway sends informational answers only")
}

// close ends the connection to the gateway, unless the relay has it.
func (u *upgrade) close() {
	if u.conn == nil {
		return
	}
	u.free()
	u.conn.Close()
	u.conn = nil
	u.proxy.putReader(u.reader)
}

func (p *Proxy) putReader(r *bufio.Reader) {
	r.Reset(nil)
	p.readers.Put(r)
}

// answerBody is the body of an answer that is not an upgrade.
type answerBody struct {
	io.Reader
	upgrade *upgrade
}

// Close does not close the body that it wraps, which would read it to its end.
func (b answerBody) Close() error {
	b.upgrade.close()
	return nil
}

// relay hands both connections over. From the hijack on the client can not be
// answered, so that a failure only closes its connection.
func (u *upgrade) relay(resp *http.Response) error {
	defer u.close()
	if !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return fmt.Errorf("the gateway upgrades to %q, which nobody asked for", resp.Header.Get("Upgrade"))
	}
	if !u.free() {
		return context.Canceled // the client is gone, and the deadline may be set
	}
	head := u.head(resp)
	client, rw, err := http.NewResponseController(u.w).Hijack()
	if err != nil {
		u.proxy.log.Debug("a connection can not be upgraded", "error", err)
		return errRelayed
	}
	if _, err := client.Write(head); err != nil {
		client.Close()
		return errRelayed
	}
	s := &socket{target: u.target}
	p := u.proxy // what the relay keeps must not keep u, whose writer has net/http's buffers
	pair := relay.Pair{Client: client, Upstream: u.conn, FromClient: buffered(rw.Reader), FromUpstream: buffered(u.reader),
		Done: func(error) { p.left(s) }}
	if active := p.config.Active; active != nil {
		pair.Activity = func(head []byte) { active(s.target.User, p.kindOf(head)) }
	}
	tracked, ok := client.(handover)
	if !ok {
		p.socket(s.target.User, true)
		s.session = p.relay.Start(pair)
	} else if !tracked.HandOver(func(raw net.Conn, done func()) func() {
		pair.Client = raw
		pair.Done = func(error) { done(); p.left(s) }
		p.socket(s.target.User, true)
		s.session = p.relay.Start(pair)
		return s.restart
	}) {
		client.Close()
		return errRelayed
	}
	p.joined(s)
	u.relayed, u.conn = true, nil // so that close leaves it
	u.proxy.putReader(u.reader)
	return errRelayed
}

// buffered is what r has read ahead.
func buffered(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered())
	return b
}

// head is the 101 for the client, with what handlers before this one have set.
func (u *upgrade) head(resp *http.Response) []byte {
	h := u.w.Header().Clone()
	for name, values := range resp.Header {
		if name == "Set-Cookie" {
			values = upstream.HostOnly(values)
		}
		h[name] = append(h[name], values...)
	}
	for _, name := range hops {
		h.Del(name)
	}
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	h.Write(&b) // replaces line breaks
	b.WriteString("\r\n")
	return []byte(b.String())
}
