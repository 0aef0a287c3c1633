package http1

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	// outSize is what an answer's buffer holds; what is larger is written from where
	// it is.
	outSize = 16 << 10
	// smallBody is how much of a body of unknown length is held back: if it ends
	// within that, it is sent with its length, in one write (net/http's rule).
	smallBody = 2 << 10
)

// answer is the http.ResponseWriter of one request. It follows net/http's in all that
// a handler can see, except that it can not be hijacked: an upgrade is not plain.
type answer struct {
	conn   *conn
	head   bool // the answer to a HEAD
	header http.Header
	out    []byte // not sent yet
	body   []byte // the begin of a body whose framing is not known yet
	err    error  // of the connection

	status   int   // 0: there is no head yet
	length   int64 // as the handler says; -1 is unknown
	written  int64 // of the body
	framed   bool  // the head is whole
	chunked  bool
	typed    bool // has a Content-Type, or must not get one
	dated    bool
	closes   bool // the connection ends with it
	told     bool // and the head says so
	done     bool // the handler has returned
	trailers []string
	trailing bool // trailers may come
}

// begin makes a ready for another request.
func (a *answer) begin(c *conn, method string) {
	*a = answer{conn: c, head: method == http.MethodHead, header: a.header, out: a.out[:0], body: a.body[:0], length: -1}
}

// Header is what the handler sets before it writes, and trailers afterwards.
func (a *answer) Header() http.Header { return a.header }

// allowed tells whether an answer of the status may have a body (RFC 9110 section
// 6.4.1).
func (a *answer) allowed() bool {
	return a.status >= 200 && a.status != http.StatusNoContent && a.status != http.StatusNotModified
}

// WriteHeader begins the answer; an informational one is sent at once.
func (a *answer) WriteHeader(code int) {
	if code < 100 || code > 999 {
		panic("invalid WriteHeader code " + strconv.Itoa(code)) // as net/http
	}
	if a.status != 0 {
		a.conn.server.logf("http: superfluous response.WriteHeader call")
		return
	}
	if code < 200 {
		a.out = appendStatus(a.out, code)
		for name, values := range a.header {
			if name != "Content-Length" && name != "Transfer-Encoding" {
				a.out = appendFields(a.out, name, values)
			}
		}
		a.out = append(a.out, '\r', '\n')
		a.send(nil)
		return
	}
	a.status = code
	a.out = appendStatus(a.out, code)
	for name, values := range a.header {
		switch name {
		case "Transfer-Encoding":
			continue
		case "Content-Length":
			if n, err := strconv.ParseUint(a.header.Get(name), 10, 63); err == nil {
				a.length = int64(n)
			}
			continue
		case "Connection":
			a.closes = a.closes || len(values) > 0 && values[0] == "close"
			a.told = a.closes
		case "Content-Type":
			if a.typed = true; code == http.StatusNotModified {
				continue // net/http says nothing of what is not there
			}
		case "Content-Encoding":
			a.typed = a.typed || len(values) > 0 && values[0] != ""
		case "Date":
			a.dated = true
		case "Trailer":
			a.announce(values)
		default:
			if strings.HasPrefix(name, http.TrailerPrefix) {
				a.trailing = true
				continue
			}
		}
		a.out = appendFields(a.out, name, values)
	}
}

// announce notes which fields come after the body.
func (a *answer) announce(lines []string) {
	a.trailing = true
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.Trim(name, " \t"))
			switch name {
			case "", "Transfer-Encoding", "Content-Length", "Trailer":
			default:
				if !slices.Contains(a.trailers, name) {
					a.trailers = append(a.trailers, name)
				}
			}
		}
	}
}

// frame ends the head; p is the begin of the body, or all of it after the handler's
// return.
func (a *answer) frame(p []byte) {
	a.framed = true
	if a.allowed() {
		if a.done && a.length < 0 && !a.trailing && (!a.head || a.written > 0) {
			a.length = a.written
		}
		if !a.typed && len(p) > 0 {
			a.out = appendField(a.out, "Content-Type", http.DetectContentType(p))
		}
		switch {
		case a.length >= 0:
			a.out = append(a.out, "Content-Length: "...)
			a.out = strconv.AppendInt(a.out, a.length, 10)
			a.out = append(a.out, '\r', '\n')
		case !a.head:
			a.chunked = true
			a.out = append(a.out, "Transfer-Encoding: chunked\r\n"...)
		}
	}
	if !a.dated {
		a.out = append(a.out, *a.conn.server.date.Load()...)
	}
	if a.closes = a.closes || a.conn.server.closing.Load(); a.closes && !a.told {
		a.out = append(a.out, "Connection: close\r\n"...)
	}
	a.out = append(a.out, '\r', '\n')
}

// Write sends a part of the body, or holds it back for a moment.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !a.allowed() {
		return 0, http.ErrBodyNotAllowed
	}
	if a.written += int64(len(p)); a.length >= 0 && a.written > a.length {
		return 0, http.ErrContentLength
	}
	if !a.framed && a.length < 0 {
		if len(a.body)+len(p) <= smallBody {
			a.body = append(a.body, p...)
			return len(p), a.err
		}
		a.release(p)
	}
	if !a.framed {
		a.frame(p)
	}
	a.add(p)
	if a.err != nil {
		return 0, a.err
	}
	return len(p), nil
}

// release frames the body without knowing its length, and lets go what was held back;
// p comes next.
func (a *answer) release(p []byte) {
	if len(a.body) > 0 {
		p = a.body
	}
	a.frame(p)
	a.add(a.body)
	a.body = a.body[:0]
}

// chunkFrame is the room for a chunk's size and two line breaks.
const chunkFrame = 16 + 4

// add sends p, or keeps it where there is room.
func (a *answer) add(p []byte) {
	if a.head || len(p) == 0 {
		return
	}
	if a.chunked {
		a.out = strconv.AppendInt(a.out, int64(len(p)), 16)
		a.out = append(a.out, '\r', '\n')
	}
	if len(a.out)+len(p)+chunkFrame <= outSize {
		a.out = append(a.out, p...)
	} else {
		a.send(p)
	}
	if a.chunked {
		a.out = append(a.out, '\r', '\n')
	}
}

// send writes what is held, and p, in one call.
func (a *answer) send(p []byte) {
	defer func() { a.out = a.out[:0] }()
	switch {
	case a.err != nil || len(a.out)+len(p) == 0:
	case len(p) == 0:
		_, a.err = a.conn.direct.Write(a.out)
	case len(a.out) == 0:
		_, a.err = a.conn.tcp.Write(p)
	default:
		both := net.Buffers{a.out, p}
		_, a.err = both.WriteTo(a.conn.tcp)
	}
}

// Flush sends all that was written.
func (a *answer) Flush() { a.FlushError() }

// FlushError is Flush with the connection's error, for http.ResponseController.
func (a *answer) FlushError() error {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if !a.framed {
		a.release(nil)
	}
	a.send(nil)
	return a.err
}

// ReadFrom copies src to the body. If src is a *io.LimitedReader of a TCP connection
// the bytes do not pass through this process.
func (a *answer) ReadFrom(src io.Reader) (int64, error) {
	from, limited := src.(*io.LimitedReader)
	if limited && a.status != 0 && a.allowed() && !a.head && a.length >= 0 && from.N <= a.length-a.written {
		if tcp, ok := from.R.(*net.TCPConn); ok && a.err == nil {
			if !a.framed {
				a.frame(nil)
			}
			if a.send(nil); a.err != nil {
				return 0, a.err
			}
			n, err := a.conn.tcp.ReadFrom(&io.LimitedReader{R: tcp, N: from.N})
			a.written += n
			from.N -= n
			return n, err
		}
	}
	return io.Copy(struct{ io.Writer }{a}, src)
}

// finish ends the answer after the handler's return, and reports whether the
// connection may be used again.
func (a *answer) finish() bool {
	a.done = true
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if !a.framed {
		a.release(nil)
	}
	if a.chunked {
		a.out = append(a.out, '0', '\r', '\n')
		for name, values := range a.header {
			if prefixed, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
				a.out = appendFields(a.out, prefixed, values)
			}
		}
		for _, name := range a.trailers {
			a.out = appendFields(a.out, name, a.header[name])
		}
		a.out = append(a.out, '\r', '\n')
	}
	a.send(nil)
	short := a.length >= 0 && a.written != a.length && !a.head && a.allowed()
	return a.err == nil && !a.closes && !short
}
