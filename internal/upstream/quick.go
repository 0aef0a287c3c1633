package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"

	"openclaw-sandbox/internal/http1"
)

// quick reads the answer's head if it is what most are: here as a whole, strictly
// well-formed, final, with a body of a length that it tells once. It returns nil,
// and has read nothing then, for any other, which is for http.ReadResponse to judge.
// What it takes, that takes with the same result; FuzzQuick compares them.
func (x *exchange) quick() *http.Response {
	if x.r.Method == http.MethodHead {
		return nil
	}
	if _, err := x.c.br.Peek(1); err != nil { // waits
		return nil
	}
	b, _ := x.c.br.Peek(x.c.br.Buffered())
	if x.c.fields == nil {
		x.c.fields = http.Header{}
	}
	clear(x.c.fields)
	status, length, size := quickHead(b, x.c.fields)
	if size == 0 {
		return nil
	}
	x.c.br.Discard(size)
	x.body = sized{x.c.br, length}
	resp := &http.Response{StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: x.c.fields, ContentLength: length, Body: &x.body, Request: x.r}
	if length == 0 {
		resp.Body = http.NoBody
	}
	return resp
}

// quickHead parses the head at the start of b; size is 0 if it is not quick's.
func quickHead(b []byte, fields http.Header) (status int, length int64, size int) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 || !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) {
		return 0, 0, 0
	}
	line, rest, _ := strings.Cut(string(b[len("HTTP/1.1 "):end+2]), "\r\n")
	code, reason, _ := strings.Cut(line, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || status < 200 || status > 599 || status == http.StatusNoContent || status == http.StatusNotModified || !validValue(reason) {
		return 0, 0, 0
	}
	if !http1.ReadFields(rest, fields, ordinary) || len(fields["Content-Length"]) != 1 {
		return 0, 0, 0
	}
	n, err := strconv.ParseUint(fields["Content-Length"][0], 10, 62)
	if err != nil {
		return 0, 0, 0
	}
	return status, int64(n), end + 4
}

// ordinary refuses the fields that make of an answer more than a head and a body.
func ordinary(name, value string) bool {
	switch name {
	case "Connection":
		return strings.EqualFold(value, "keep-alive")
	case "Transfer-Encoding", "Trailer", "Upgrade", "Pragma": // the last one http.ReadResponse reads something into
		return false
	}
	return true
}

// sized is a body of a length.
type sized struct {
	br   *bufio.Reader
	left int64
}

// Read returns io.EOF with the last bytes, and io.ErrUnexpectedEOF for a body that
// is shorter.
func (s *sized) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.br.Read(b[:min(int64(len(b)), s.left)])
	switch s.left -= int64(n); {
	case s.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close does nothing: who reads a part only closes the connection.
func (s *sized) Close() error { return nil }
