package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"reflect"
	"testing"
)

// FuzzQuick fails if http.ReadResponse does not read what quickHead takes, or reads
// something else.
func FuzzQuick(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: a\r\nSet-Cookie: b\r\nset-cookie: c\r\n\r\nabcrest", "HTTP/1.1 404 \r\ncontent-length:0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 500\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n b: c\r\n\r\nab", "HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nab"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fields := http.Header{}
		status, length, size := quickHead(b, fields)
		if size == 0 {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: http.MethodGet})
		if err != nil {
			t.Fatalf("%q: net/http does not take it: %v", b, err)
		}
		if resp.StatusCode != status || resp.ContentLength != length || !reflect.DeepEqual(resp.Header, fields) || resp.Close || len(resp.Trailer) > 0 || len(resp.TransferEncoding) > 0 || resp.ProtoMinor != 1 {
			t.Fatalf("%q: net/http reads\n%+v, and this\n%d %d %+v", b, resp, status, length, fields)
		}
		want, wantErr := io.ReadAll(resp.Body)
		got, gotErr := io.ReadAll(&sized{bufio.NewReader(bytes.NewReader(b[size:])), length})
		if !bytes.Equal(got, want) || gotErr != wantErr {
			t.Fatalf("%q: net/http's body is %q, %v, and this %q, %v", b, want, wantErr, got, gotErr)
		}
		if !passable(fields) {
			t.Fatalf("%q may not pass", b)
		}
	})
}
