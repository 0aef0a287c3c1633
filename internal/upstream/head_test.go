package upstream

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEndToEnd(t *testing.T) {
	src := http.Header{
		"Connection": {"close, X-Foo", "x-bar ,TE"}, "X-Foo": {"1"}, "X-Bar": {"2"}, "X-Kept": {"3"}, "Te": {"trailers"}, "Upgrade": {"h2c"},
		"Keep-Alive": {"timeout=5"}, "Proxy-Connection": {"x"}, "Proxy-Authorization": {"x"}, "Proxy-Authenticate": {"x"},
		"Transfer-Encoding": {"chunked"}, "Trailer": {"X"}, "transfer-encoding": {"chunked"},
	}
	dst := http.Header{"Old": {"x"}}
	EndToEnd(dst, src)
	if want := (http.Header{"X-Kept": {"3"}}); !reflect.DeepEqual(dst, want) {
		t.Errorf("EndToEnd = %v, want %v", dst, want)
	}
	if len(src) != 13 {
		t.Errorf("the source was changed: %v", src)
	}
}

func TestRefused(t *testing.T) {
	ok := func() *http.Request {
		return &http.Request{Method: "GET", URL: &url.URL{Path: "/a"}, Host: "h", Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"as it is":           {func(*http.Request) {}, 0},
		"tab in value":       {func(r *http.Request) { r.Header["X"] = []string{"a\tb"} }, 0},
		"bytes above ASCII":  {func(r *http.Request) { r.Header["X"] = []string{"é"} }, 0},
		"OPTIONS *":          {func(r *http.Request) { r.Method, r.URL.Path = "OPTIONS", "*" }, 0},
		"CR in value":        {func(r *http.Request) { r.Header["X"] = []string{"a\rb"} }, 400},
		"LF in value":        {func(r *http.Request) { r.Header["X"] = []string{"a\nX: b"} }, 400},
		"NUL in value":       {func(r *http.Request) { r.Header["X"] = []string{"a\x00"} }, 400},
		"DEL in value":       {func(r *http.Request) { r.Header["X"] = []string{"a\x7f"} }, 400},
		"space in name":      {func(r *http.Request) { r.Header["X Y"] = []string{"a"} }, 400},
		"colon in name":      {func(r *http.Request) { r.Header["X:"] = []string{"a"} }, 400},
		"empty name":         {func(r *http.Request) { r.Header[""] = []string{"a"} }, 400},
		"LF in query":        {func(r *http.Request) { r.URL.RawQuery = "a\nb" }, 400},
		"space in query":     {func(r *http.Request) { r.URL.RawQuery = "a HTTP/1.1\r\n" }, 400},
		"no slash":           {func(r *http.Request) { r.URL.Path = "a" }, 400},
		"opaque":             {func(r *http.Request) { r.URL.Opaque = "/b" }, 400},
		"GET *":              {func(r *http.Request) { r.URL.Path = "*" }, 400},
		"space in host":      {func(r *http.Request) { r.Host = "a b" }, 400},
		"LF in host":         {func(r *http.Request) { r.Host = "a\nb" }, 400},
		"user in host":       {func(r *http.Request) { r.Host = "u@h" }, 400},
		"space in method":    {func(r *http.Request) { r.Method = "GET /" }, 400},
		"no method":          {func(r *http.Request) { r.Method = "" }, 400},
		"CONNECT":            {func(r *http.Request) { r.Method = "CONNECT" }, 405},
		"TRACE":              {func(r *http.Request) { r.Method = "TRACE" }, 405},
		"CR in a hop-by-hop": {func(r *http.Request) { r.Header["Upgrade"] = []string{"a\r"} }, 0}, // not written
	} {
		t.Run(name, func(t *testing.T) {
			r := ok()
			c.change(r)
			b, _, err := appendHead(nil, r, r.Header, "addr")
			var refused *RequestError
			if c.status == 0 && err != nil || c.status != 0 && (!errors.As(err, &refused) || refused.Status != c.status) {
				t.Errorf("%q, %v; want %d", b, err, c.status)
			}
		})
	}
}

// FuzzHead: what is written is read back by net/http as the same request, all of
// it and nothing after it, or it was refused.
func FuzzHead(f *testing.F) {
	f.Add("GET", "/a%2Fb//c", "q=1;2&x", "h.example:80", "X-A", "v", "Accept", "text/html", int64(0), false)
	f.Add("POST", "/", "", "[::1]:80", "Content-Length", "5", "Transfer-Encoding", "chunked", int64(-1), true)
	f.Add("OPTIONS", "*", "", "", "X\r\nY", "a\r\nb", "Host", "other", int64(7), true)
	f.Add("GET", "//x", "a b", "a b", "Expect", "100-continue", "Te", "trailers", int64(3), false)
	f.Fuzz(func(t *testing.T, method, path, query, host, name1, value1, name2, value2 string, length int64, trailer bool) {
		u := &url.URL{Path: path, RawQuery: query}
		r := &http.Request{Method: method, URL: u, Host: host, Header: http.Header{}, ContentLength: max(length, -1),
			Body: io.NopCloser(strings.NewReader("")), ProtoMajor: 1, ProtoMinor: 1}
		r.Header[name1] = []string{value1, value2}
		r.Header[name2] = append(r.Header[name2], value2)
		if trailer {
			r.Trailer = http.Header{name2: nil, "X-Sum": nil}
		}
		b, framing, err := appendHead(nil, r, r.Header, "10.0.0.1:1")
		if err != nil {
			return
		}
		src := bufio.NewReaderSize(strings.NewReader(string(b)+"0\r\n\r\n"), len(b)+8)
		got, err := http.ReadRequest(src)
		if err != nil {
			t.Fatalf("%q is not read back: %v", b, err)
		}
		if rest, _ := io.ReadAll(src); string(rest) != "0\r\n\r\n" && framing.length == 0 {
			t.Errorf("%q: %q is left", b, rest)
		}
		if host == "" {
			host = "10.0.0.1:1"
		}
		if got.Method != method || got.RequestURI != u.RequestURI() || got.Host != host || got.ContentLength != framing.length {
			t.Errorf("%q is read back as %s %s, host %s, length %d", b, got.Method, got.RequestURI, got.Host, got.ContentLength)
		}
		if (len(got.TransferEncoding) > 0) != (framing.length < 0) {
			t.Errorf("%q: transfer encoding %v", b, got.TransferEncoding)
		}
		want := http.Header{}
		for name, values := range r.Header {
			if hopByHop(name) || framed(name) {
				continue
			}
			for _, v := range values {
				want.Add(name, strings.Trim(v, " \t"))
			}
		}
		for _, ours := range []string{"Connection", "Te", "Expect", "Content-Length"} {
			got.Header.Del(ours)
		}
		if len(want) != len(got.Header) {
			t.Errorf("%q: header %v, want %v", b, got.Header, want)
		}
		for name := range want { // two spellings of one name come in any order
			if !slices.Equal(slices.Sorted(slices.Values(want[name])), slices.Sorted(slices.Values(got.Header[name]))) {
				t.Errorf("%q: %s = %q, want %q", b, name, got.Header[name], want[name])
			}
		}
	})
}
