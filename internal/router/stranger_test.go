package router

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/identity"
)

// A request whose body never comes does not hold its connection, wherever the router
// answers without the body.
func TestBodyNeverComes(t *testing.T) {
	s := start(t, identity.Tokens{}, time.Second)
	for path, want := range map[string]int{"/chat": http.StatusUnauthorized, "/health": http.StatusOK, "/_sandbox/readyz": http.StatusOK} {
		for _, framing := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
			t.Run(path+" "+framing, func(t *testing.T) {
				t.Parallel()
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: claw.test\r\n%s\r\n\r\n", path, framing)
				in := bufio.NewReader(conn)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatalf("no answer: %v", err)
				}
				if resp.StatusCode != want || !resp.Close {
					t.Errorf("got %s, close %t; want %d and the connection's end", resp.Status, resp.Close, want)
				}
				if _, err := io.Copy(io.Discard, in); err != nil {
					t.Errorf("the connection stays: %v", err)
				}
			})
		}
	}
}

// A head of many fields is refused before anything else is done for it.
func TestTooManyFields(t *testing.T) {
	s := start(t, identity.Tokens{}, time.Second)
	for fields, want := range map[int]int{150: http.StatusUnauthorized, maxFields + 1: http.StatusRequestHeaderFieldsTooLarge} {
		for _, accept := range []string{"text/html", "application/json"} {
			header := []string{"Accept: " + accept, "Sec-Fetch-Mode: navigate"}
			if accept != "text/html" {
				header = header[:1]
			}
			for i := range fields {
				header = append(header, fmt.Sprintf("X-%d: 1", i%7))
			}
			resp, body := s.ask("GET", "claw.test", "/chat", "", header...)
			if resp.StatusCode != want {
				t.Errorf("%d fields, %s: got %s, want %d", fields, accept, resp.Status, want)
			}
			if fields > maxFields && (!resp.Close || !strings.Contains(body, "more than 200 header fields")) {
				t.Errorf("%d fields, %s: close %t, %.200s", fields, accept, resp.Close, body)
			}
		}
	}
}
