package main

import (
	"bufio"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// answered is how a request ended.
type answered struct {
	method, host, path, from string // as the client sent them
	id                       string
	status                   int
	bytes                    int64 // of the body
	took                     time.Duration
}

// observe gives each request an id and tells done of its end; of an upgrade when it
// happens, not when the WebSocket ends hours later.
func observe(next http.Handler, done ...func(answered)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The router strips the path of its prefix, and removes headers.
		s := &observer{ResponseWriter: w, done: done, begin: time.Now(),
			answered: answered{method: r.Method, host: r.Host, path: r.URL.Path, from: r.RemoteAddr, id: identify(r), status: http.StatusOK}}
		w.Header()[requestID] = []string{s.answered.id}
		defer func() {
			if !s.upgraded {
				s.end()
			}
		}()
		next.ServeHTTP(s, r)
	})
}

// observer notes what is answered.
type observer struct {
	http.ResponseWriter
	answered answered
	begin    time.Time
	done     []func(answered)
	upgraded bool
}

func (s *observer) end() {
	s.answered.took = time.Since(s.begin)
	for _, f := range s.done {
		f(s.answered)
	}
}

// Hijack ends the observation.
func (s *observer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(s.ResponseWriter).Hijack()
	if err == nil {
		s.upgraded = true
		s.answered.status = http.StatusSwitchingProtocols
		s.end()
	}
	return conn, rw, err
}

func (s *observer) WriteHeader(code int) {
	s.answered.status = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *observer) Write(b []byte) (int, error) {
	n, err := s.ResponseWriter.Write(b)
	s.answered.bytes += int64(n)
	return n, err
}

// ReadFrom lets the server move a body from one connection to another.
func (s *observer) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(s.ResponseWriter, r)
	s.answered.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the real writer, to flush and hijack.
func (s *observer) Unwrap() http.ResponseWriter { return s.ResponseWriter }

const requestID = "X-Request-Id"

var (
	safeID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	// W3C Trace Context, section 3.2: version 00, and later ones that begin like it.
	traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$`)
)

// identify returns the request's id: the sender's, if it is one that can do no harm
// in a log, or a new one. The gateway gets it too, and a trace that is well-formed.
func identify(r *http.Request) string {
	id := r.Header.Get(requestID)
	if !safeID.MatchString(id) {
		id = rand.Text()
	}
	r.Header[requestID] = []string{id}
	if given := r.Header.Values("Traceparent"); len(given) > 0 && (len(given) > 1 || !validTrace(given[0])) {
		r.Header.Del("Traceparent")
		r.Header.Del("Tracestate")
	}
	return id
}

func validTrace(s string) bool {
	if !traceparent.MatchString(s) {
		return false
	}
	version, trace, parent := s[:2], s[3:35], s[36:52]
	return version != "ff" && (version != "00" || len(s) == 55) && strings.Trim(trace, "0") != "" && strings.Trim(parent, "0") != ""
}

// accessLog writes a line for each request, but not for those of load balancers
// that look whether we live.
func accessLog(log *slog.Logger) func(answered) {
	return func(a answered) {
		switch a.path {
		case "/health", "/_sandbox/healthz", "/_sandbox/readyz":
			return
		}
		log.Info("request", "id", a.id, "method", a.method, "host", a.host, "path", redact(a.path), "from", a.from,
			"status", a.status, "bytes", a.bytes, "ms", float64(a.took.Microseconds())/1000)
	}
}

// maxSegment is how long a part of a path may be to stand in the log: longer ones
// may be tokens (a Telegram webhook's is 46 bytes). Queries are never logged.
const maxSegment = 40

func redact(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if len(p) > maxSegment {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}
