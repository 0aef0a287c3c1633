package http1_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"openclaw-sandbox/internal/http1/http1test"
)

// answersOf are all bytes that come for raw, without dates, with the fields of each
// head in order.
func answersOf(t *testing.T, addr net.Addr, raw string) string {
	t.Helper()
	c, br := dial(t, addr)
	io.WriteString(c, raw)
	b, _ := io.ReadAll(br)
	const version = "HTTP/1.1 " // no body here has it
	answers := strings.Split(string(b), version)
	for i, a := range answers {
		head, rest, _ := strings.Cut(a, "\r\n\r\n")
		lines := slices.DeleteFunc(strings.Split(head, "\r\n"), func(l string) bool { return strings.HasPrefix(l, "Date: ") })
		slices.Sort(lines[1:])
		answers[i] = strings.Join(lines, "\r\n") + "\r\n\r\n" + rest
	}
	return strings.Join(answers, version)
}

// Whatever a handler does, the client sees what net/http's server would send.
func TestAnswersAsNetHTTP(t *testing.T) {
	flush := func(w http.ResponseWriter) { http.NewResponseController(w).Flush() }
	for name, h := range map[string]http.HandlerFunc{
		"nothing":    func(http.ResponseWriter, *http.Request) {},
		"small":      func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>hello") },
		"two writes": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a"); io.WriteString(w, "b") },
		"large": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "300000")
			w.Write(make([]byte, 300000))
		},
		"flushed": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "a")
			flush(w)
			io.WriteString(w, "b")
			flush(w)
		},
		"only flushed": func(w http.ResponseWriter, _ *http.Request) { flush(w) },
		"a length": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
		},
		"too short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			io.WriteString(w, "hello")
		},
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			io.WriteString(w, "he")
			io.WriteString(w, "llo")
		},
		"an error":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) },
		"an odd status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(799) },
		"204": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			w.WriteHeader(204)
			io.WriteString(w, "no")
		},
		"304": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(304)
			io.WriteString(w, "no")
		},
		"early hints": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(103)
			w.WriteHeader(200)
		},
		"no type": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		},
		"an encoding": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			io.WriteString(w, "<html>")
		},
		"injection": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("A", "b\r\nC: d")
			w.Header()["E f"] = []string{"g"}
		},
		"closes": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			io.WriteString(w, "bye")
		},
		"set too late": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			w.Header().Set("Late", "1")
			io.WriteString(w, "a")
		},
		"twice": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.WriteHeader(202) },
		"trailers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "A")
			io.WriteString(w, "body")
			w.Header().Set("A", "1")
		},
		"unannounced": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "body")
			flush(w)
			w.Header().Set(http.TrailerPrefix+"B", "2")
		},
		"read from": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.Copy(w, strings.NewReader("hello"))
		},
		"panic": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"broken off": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "a")
			flush(w)
			panic(http.ErrAbortHandler)
		},
	} {
		theirs := httptest.NewServer(h)
		defer theirs.Close()
		ours := http1test.NewServer(h)
		defer ours.Close()
		for _, method := range []string{"GET", "HEAD"} {
			// The second request ends the connection, at net/http's in both cases.
			raw := method + " / HTTP/1.1\r\nHost: a\r\n\r\n" + method + " / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
			want, got := answersOf(t, theirs.Listener.Addr(), raw), answersOf(t, ours.Listener.Addr(), raw)
			if got != want {
				t.Errorf("%s, %s: the client got\n%.400q, want\n%.400q", name, method, got, want)
			}
		}
	}
}
