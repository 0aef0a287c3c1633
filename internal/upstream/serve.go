package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"

	"openclaw-sandbox/internal/syntax"
)

// Serve sends r with the header h to the gateway, and its answer to w. h has passed
// EndToEnd; it is only read. modify, if any, may change the answer before it is
// passed on, as ReverseProxy's ModifyResponse; the answer's Request is r.
//
// An error means that nothing was written to w but perhaps informational answers:
// a *RequestError, a *BodyError, a *SilentError, ErrGone, ErrHeadTooLarge, ErrMalformed, the error
// of modify, of Dial, or of the connection. If the answer breaks off later, Serve
// panics with http.ErrAbortHandler, for the client must not take it for whole.
//
// A request is sent twice here only if it is a GET, HEAD or OPTIONS without a body, and
// an idle connection ended without a byte of an answer (RFC 9110 section 9.2.2).
func (p *Pool) Serve(w http.ResponseWriter, r *http.Request, h http.Header, modify func(*http.Response) error) error {
	buf := p.client.buffer()
	defer p.client.release(buf)
	head, f, err := appendHead((*buf)[:0], r, h, p.addr)
	*buf = head[:cap(head)] // it may have grown
	if err != nil {
		return err
	}
	for c := p.take(); ; c = nil {
		if c == nil {
			if c, err = p.dial(r.Context()); err != nil {
				if r.Context().Err() != nil {
					return ErrGone
				}
				return err
			}
		}
		x := exchange{pool: p, c: c, w: w, r: r, framing: f, head: len(head), modify: modify}
		err := x.run(*buf)
		switch again := x.again(err); {
		case !again:
			return err
		case !c.reused:
			return &SilentError{err}
		}
	}
}

// exchange is one request and its answer over one connection.
type exchange struct {
	pool    *Pool
	c       *conn
	w       http.ResponseWriter
	r       *http.Request
	framing framing
	head    int // the length of the request's head
	modify  func(*http.Response) error
	sender  *sender // of a request with a body
	begun   bool    // the answer's head was passed on
	body    sized   // of the answer, if quick read its head
}

// again tells whether the request had no answer and may be sent once more.
func (x *exchange) again(err error) bool {
	if err == nil || x.c.received || x.framing.hasBody() || errors.Is(err, ErrGone) {
		return false
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return false // it may still be worked on
	}
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// run sends the request, whose head is at the start of buf, and passes the answer
// on. Whatever happens, nothing of it still runs when it returns.
func (x *exchange) run(buf []byte) (err error) {
	stop := afterEnd(x.r.Context(), x.c.abort)
	reusable := false
	defer func() {
		gone := x.r.Context().Err() != nil // before halt, which ends it itself
		if x.sender != nil && !x.sender.end(reusable) {
			reusable = false
			if broken, ok := errors.AsType[*BodyError](x.sender.err); ok && err != nil && !x.begun {
				err = broken
			}
		}
		if !stop() || !reusable {
			x.c.Close()
			x.c.end(x.pool.client)
		} else {
			x.pool.put(x.c)
		}
		if err == nil {
			return
		}
		if x.begun {
			http.NewResponseController(x.w).Flush() // as much as there is
			panic(http.ErrAbortHandler)
		}
		if gone {
			err = ErrGone
		}
	}()

	if x.framing.hasBody() {
		x.sender = x.pool.client.send(x.c, x.w, x.r, buf, x.head, x.framing)
		b := x.pool.client.buffer() // the sender has the other
		defer x.pool.client.release(b)
		buf = *b
	} else {
		if _, err := x.c.Write(buf[:x.head]); err != nil {
			return err
		}
		if t := x.pool.client.o.HeadTimeout; t > 0 {
			x.c.SetReadDeadline(time.Now().Add(t))
		}
	}
	resp, err := x.readHead()
	if err != nil {
		x.closeClient()
		return err
	}
	ended := resp.Body == http.NoBody
	var whole *ending
	if x.modify != nil {
		whole = &ending{ReadCloser: resp.Body, ended: ended}
		resp.Body = whole
		if err := x.modify(resp); err != nil {
			x.closeClient()
			return err
		}
	}
	announced := x.passHead(resp)
	if !ended {
		pass := x.passBody
		if x.wholesale(resp) {
			pass = x.moveBody
		}
		if err := pass(resp, buf); err != nil {
			return err
		}
		passTrailers(x.w, resp, announced)
	}
	reusable = !resp.Close && (whole == nil || whole.ended) && x.c.br.Buffered() == 0
	return nil
}

// afterEnd is context.AfterFunc, which makes more of it than a context needs that can
// do that itself.
func afterEnd(ctx context.Context, f func()) (stop func() bool) {
	if able, ok := ctx.(interface {
		AfterFunc(func()) func() bool
	}); ok {
		return able.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}

// readHead reads the answer's head, and passes informational ones on.
func (x *exchange) readHead() (*http.Response, error) {
	for {
		if resp := x.quick(); resp != nil {
			x.headRead()
			return resp, nil
		}
		resp, err := http.ReadResponse(x.c.br, x.r)
		switch {
		case x.c.tooLarge:
			return nil, ErrHeadTooLarge
		case err != nil && !x.c.received:
			return nil, fmt.Errorf("the gateway closed the connection without an answer: %w", err)
		case err != nil:
			if _, ok := errors.AsType[net.Error](err); ok {
				return nil, fmt.Errorf("read the gateway's answer: %w", err)
			}
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		case resp.ProtoMajor != 1 || resp.StatusCode < 100 || !passable(resp.Header):
			return nil, ErrMalformed
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, fmt.Errorf("%w: it switches protocols, which nobody asked for", ErrMalformed)
		case resp.StatusCode == http.StatusContinue:
			if x.sender != nil {
				x.sender.proceed()
			}
		case resp.StatusCode < 200:
			x.inform(resp)
		default:
			x.headRead()
			return resp, nil
		}
	}
}

// headRead ends the bounds that a head has.
func (x *exchange) headRead() {
	x.c.unbounded()
	if x.sender != nil {
		x.sender.answer()
	}
	if x.pool.client.o.HeadTimeout > 0 {
		x.c.SetReadDeadline(time.Time{})
	}
}

// passable finds what ReadResponse lets pass and RFC 9110 sections 5.1 and 5.5 do
// not; line breaks net/http makes spaces.
func passable(h http.Header) bool {
	for name, values := range h {
		if !syntax.Token.Only(name) {
			return false
		}
		for _, v := range values {
			if strings.IndexByte(v, 0) >= 0 {
				return false
			}
		}
	}
	return true
}

// inform passes an informational answer on (RFC 9110 section 15.2).
func (x *exchange) inform(resp *http.Response) {
	if !x.r.ProtoAtLeast(1, 1) {
		return
	}
	if x.sender != nil {
		x.sender.mu.Lock()
		defer x.sender.mu.Unlock()
	}
	informational(x.w, resp.StatusCode, resp.Header)
}

// informational writes an informational answer with the fields of src; those that
// are set already are for the answer itself.
func informational(w http.ResponseWriter, code int, src http.Header) {
	h := w.Header()
	had := maps.Clone(h)
	clear(h)
	copyHeader(h, src)
	w.WriteHeader(code)
	clear(h)
	maps.Copy(h, had)
}

// closeClient makes net/http close the client's connection after the answer, if
// not all of the request was read: what follows on it is not another request.
func (x *exchange) closeClient() {
	if x.sender == nil {
		return
	}
	x.sender.answer() // the header is ours alone from here on
	if !x.sender.read.Load() && x.r.ProtoMajor == 1 {
		x.w.Header().Set("Connection", "close")
	}
}

// passHead passes the answer's head on and returns how many trailers it announced.
func (x *exchange) passHead(resp *http.Response) int {
	h := x.w.Header()
	copyHeader(h, resp.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would guess one
	}
	x.closeClient()
	announced := 0
	if resp.ContentLength < 0 {
		for name := range resp.Trailer {
			if mayTrail(name) {
				h.Add("Trailer", name)
				announced++
			}
		}
	}
	x.begun = true
	x.w.WriteHeader(resp.StatusCode)
	return announced
}

// copyHeader adds the end-to-end fields of src to dst. What a Connection with
// "close" names beside it passes: http.ReadResponse hides it.
func copyHeader(dst, src http.Header) {
	if c := src["Connection"]; c != nil {
		dropNamed(src, c)
	}
	for name, values := range src {
		if hopByHop(name) {
			continue
		}
		if name == "Set-Cookie" {
			values = HostOnly(values)
		}
		if have, ok := dst[name]; ok {
			values = append(have, values...)
		}
		dst[name] = values
	}
}

// passBody passes the answer's body on. Its error is of either side.
func (x *exchange) passBody(resp *http.Response, buf []byte) error {
	// Write only: with io.Copy net/http's ReadFrom would send the head by itself,
	// two writes for a small answer.
	client := http.NewResponseController(x.w)
	for {
		// Nothing is held back while the gateway takes its time: the next read may wait.
		if x.c.br.Buffered() == 0 {
			if err := client.Flush(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
		}
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, err := x.w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil // the server sends what is left, with the end
		}
		if err != nil {
			return fmt.Errorf("read the gateway's answer: %w", err)
		}
	}
}

// wholesale tells whether the rest of the body is worth moving from connection to
// connection, without its bytes passing through here.
func (x *exchange) wholesale(resp *http.Response) bool {
	if x.modify != nil || x.r.TLS != nil || resp.ContentLength-int64(x.c.br.Buffered()) < wholesaleSize {
		return false
	}
	_, from := x.c.Conn.(*net.TCPConn)
	_, to := x.w.(io.ReaderFrom)
	return from && to
}

// moveBody is passBody for a body for which wholesale holds.
func (x *exchange) moveBody(resp *http.Response, _ []byte) error {
	begin, _ := x.c.br.Peek(x.c.br.Buffered()) // all of it is of the body, which is longer
	if _, err := x.w.Write(begin); err != nil {
		return err
	}
	rest := &io.LimitedReader{R: x.c.Conn, N: resp.ContentLength - int64(len(begin))}
	x.c.br.Discard(len(begin))
	if _, err := x.w.(io.ReaderFrom).ReadFrom(rest); err != nil {
		return fmt.Errorf("move the gateway's answer: %w", err)
	}
	if rest.N > 0 {
		return fmt.Errorf("read the gateway's answer: %w", io.ErrUnexpectedEOF)
	}
	return nil
}

// passTrailers passes on what came after the body.
func passTrailers(w http.ResponseWriter, resp *http.Response, announced int) {
	if len(resp.Trailer) == 0 || resp.ContentLength >= 0 {
		return
	}
	prefix := ""
	if len(resp.Trailer) != announced {
		prefix = http.TrailerPrefix
		http.NewResponseController(w).Flush() // chunked, or there is no room for them
	}
	h := w.Header()
	for name, values := range resp.Trailer {
		if mayTrail(name) {
			h[prefix+name] = values
		}
	}
}

// ending notes that a body was read to its end.
type ending struct {
	io.ReadCloser
	ended bool
}

func (e *ending) Read(b []byte) (int, error) {
	n, err := e.ReadCloser.Read(b)
	if err == io.EOF {
		e.ended = true
	}
	return n, err
}
