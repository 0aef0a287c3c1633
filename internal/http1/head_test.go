package http1

import (
	"bufio"
	"bytes"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

const plainHead = "GET /a/b.js?c=d HTTP/1.1\r\nHost: alice.example.com:8080\r\nAccept: */*\r\nCookie: a=b\r\nX-A: 1\r\nx-a:2\r\n\r\n"

// What is taken, and what is left to net/http.
func TestParse(t *testing.T) {
	for in, want := range map[string]bool{
		plainHead:                                                                 true,
		plainHead + plainHead:                                                     true,
		plainHead[:len(plainHead)-1]:                                              false,
		"":                                                                        false,
		"\r\n\r\n":                                                                false,
		"GET / HTTP/1.1\r\n\r\n":                                                  false, // no Host
		"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n":                                      true,
		"POST / HTTP/1.1\r\nHost: a\r\n\r\n":                                      false,
		"get / HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
		"GET / HTTP/1.0\r\nHost: a\r\n\r\n":                                       false,
		"GET  / HTTP/1.1\r\nHost: a\r\n\r\n":                                      false,
		"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n":                               false,
		"GET * HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
		"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n":                                    false,
		"GET /%41 HTTP/1.1\r\nHost: a\r\n\r\n":                                    true,
		"GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n":                                   true,
		"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n":                                   false,
		"GET /é HTTP/1.1\r\nHost: a\r\n\r\n":                                      false,
		"GET / HTTP/1.1\nHost: a\r\n\r\n":                                         false,
		"GET / HTTP/1.1\r\nHost: a\n\r\n":                                         false,
		"GET / HTTP/1.1\r\nHost: a\r\nB: c\n\r\n\r\n":                             false,
		"GET / HTTP/1.1\r\nHost: a\r\nB: c\nD: e\r\n\r\n":                         false,
		"GET / HTTP/1.1\r\nHost: a\r\nB: c\rD: e\r\n\r\n":                         false,
		"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n":                         false, // folded
		"GET / HTTP/1.1\r\n Host: a\r\n\r\n":                                      false,
		"GET / HTTP/1.1\r\nHost : a\r\n\r\n":                                      false,
		"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n":                                false,
		"GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n":                                  false,
		"GET / HTTP/1.1\r\nHost: a\r\nB\r\nC: d\r\n\r\n":                          false,
		"GET / HTTP/1.1\r\nHost: a\r\nB: \x00\r\n\r\n":                            false,
		"GET / HTTP/1.1\r\nHost: a\r\nB: \x7f\r\n\r\n":                            false,
		"GET / HTTP/1.1\r\nHost: a\r\nB: \t c \xff\t\r\n\r\n":                     true,
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n":                            false,
		"GET / HTTP/1.1\r\nHost: \r\n\r\n":                                        false,
		"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n":                                     false,
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n":                  false,
		"GET / HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\n\r\nabc":               false,
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n":         false,
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n":        false,
		"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n":               false,
		"GET / HTTP/1.1\r\nHost: a\r\nTrailer: b\r\n\r\n":                         false,
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n":                 false,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":                  false,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, b\r\n\r\n":          false,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n":             true,
		"GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n":                   true,
		"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("B: c\r\n", 64) + "\r\n": false,
	} {
		var h head
		if got := parse([]byte(in), &h, http.Header{}); got != want {
			t.Errorf("%q is plain: %v, want %v", in, got, want)
		}
		if want {
			same(t, []byte(in))
		}
	}
}

// same fails if net/http does not read what parse takes, or reads something else.
func same(t *testing.T, b []byte) {
	var h head
	fields := http.Header{}
	if !parse(b, &h, fields) {
		return
	}
	br := bufio.NewReader(bytes.NewReader(b))
	r, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("%q: net/http does not take it: %v", b, err)
	}
	rest := len(b) - h.size
	if n, _ := br.Peek(len(b)); len(n) != min(rest, br.Buffered()) || len(b) < br.Size() && len(n) != rest {
		t.Fatalf("%q: net/http leaves %d bytes, this %d", b, len(n), rest)
	}
	if r.Method != h.method || r.RequestURI != h.target || r.Host != h.host || *r.URL != h.url || !reflect.DeepEqual(r.Header, fields) {
		t.Fatalf("%q: net/http reads\n%+v %+v\nand this\n%+v %+v", b, r, r.URL, h, fields)
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 || len(r.Trailer) > 0 || r.Close || !r.ProtoAtLeast(1, 1) || r.URL.Host != "" {
		t.Fatalf("%q is not plain: %+v", b, r)
	}
	if !httpguts.ValidHostHeader(r.Host) { // what net/http's server looks at beside
		t.Fatalf("%q: net/http's server does not take the host", b)
	}
	for name, values := range fields {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(v) {
				t.Fatalf("%q: net/http's server does not take %s", b, name)
			}
		}
	}
}

func FuzzHead(f *testing.F) {
	for _, s := range []string{plainHead, "HEAD /%41?#b HTTP/1.1\r\nHost: [::1]:80\r\nPragma: no-cache\r\n\r\nrest", "GET /? HTTP/1.1\r\nhost:a\r\na: b\r\nA:\tc \r\nX-_~:\xff\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nB: c\n\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "GET //a?b?c HTTP/1.1\r\nHost: a\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { same(t, b) })
}
