package router

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/web"
)

// problem is an error as a client sees it: a page for a person, problem details
// (RFC 9457) for a program.
type problem struct {
	Type       string         `json:"type"`
	Status     int            `json:"status"`
	Title      string         `json:"title"`
	Detail     string         `json:"detail"`
	Reason     sandbox.Reason `json:"reason,omitempty"`
	RetryAfter time.Duration  `json:"-"` // zero: a retry does not help
}

// How long a client is asked to wait before it tries again.
const (
	retryStarting = 3 * time.Second
	retryCapacity = 10 * time.Second
	retryOther    = 5 * time.Second
)

// stopped is what a page's background request gets: it may not wake a sandbox.
var stopped = problem{Status: http.StatusServiceUnavailable, Title: "Stopped", RetryAfter: retryOther,
	Detail: "The sandbox is stopped. Reload the page to wake it."}

var (
	// starting is what a request gets that was held for as long as it may, or may not be.
	starting = problem{Status: http.StatusServiceUnavailable, Title: "Still starting", RetryAfter: retryStarting,
		Detail: "The sandbox is starting and takes longer than this request may wait; try again."}
	// unanswered is what a request gets whose gateway gave no answer, or none that can
	// be passed on; or who waited for it for as long as it may.
	unanswered = problem{Status: http.StatusBadGateway, Title: "Your sandbox does not answer", RetryAfter: retryStarting,
		Detail: "It runs, but its gateway does not answer at the moment; it may be restarting. Try again in a moment."}
	// away is the same for a page's background request, which is not held.
	away = problem{Status: http.StatusServiceUnavailable, Title: "Your sandbox does not answer", RetryAfter: retryStarting,
		Detail: "Its gateway takes no connections at the moment; it may be restarting. Try again in a moment."}
)

// maxFields is how many header lines a request may have. Each costs far more memory than
// it has bytes; browsers send some 30.
const maxFields = 200

var tooManyFields = problem{Status: http.StatusRequestHeaderFieldsTooLarge, Title: "Too many header fields",
	Detail: "The request has more than 200 header fields. Send fewer; in a browser, delete the cookies of this site."}

// hasTooManyFields reports whether h has more than maxFields lines.
func hasTooManyFields(h http.Header) bool {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	return n > maxFields
}

func ofFailure(f *sandbox.Failure) problem {
	p := problem{Status: http.StatusServiceUnavailable, Title: "Your sandbox could not be started", Detail: f.Message, Reason: f.Reason}
	switch {
	case f.Reason == sandbox.ReasonNoCapacity:
		p.RetryAfter = max(retryCapacity, f.RetryAfter)
	case f.Reason == sandbox.ReasonTooOften:
		p.Status, p.Title, p.RetryAfter = http.StatusTooManyRequests, "Started too often", f.RetryAfter
	case f.Reason == sandbox.ReasonQueueFull:
		p.Status, p.Title, p.RetryAfter = http.StatusTooManyRequests, "Too many starts at once", f.RetryAfter
	case f.Reason == sandbox.ReasonUnanswered:
		p.Status, p.Title, p.RetryAfter = http.StatusBadGateway, unanswered.Title, max(retryOther, f.RetryAfter)
	case f.Reason.Permanent():
		p.Status, p.RetryAfter = http.StatusInternalServerError, 0
	default:
		p.RetryAfter = max(retryOther, f.RetryAfter)
	}
	return p
}

// refusedBody is how long a refused request's body may still take: net/http reads
// what is left of a body before it ends a request.
const refusedBody = time.Second

// abandonBody bounds the time for a body that the router does not need, so that a client
// that never sends it cannot hold the connection or delay the answer.
func abandonBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	if r.ProtoMajor == 1 { // in HTTP/2 the field would end the other streams' connection
		w.Header().Set("Connection", "close")
	}
	// A writer without deadlines has no connection to protect.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedBody))
}

// refuse answers with p, as a page or as problem details.
func (rt *Router) refuse(w http.ResponseWriter, r *http.Request, p problem) {
	abandonBody(w, r)
	setRetryAfter(w, p.RetryAfter)
	if classify(r) == kindPage {
		web.Write(w, p.Status, web.Page{Title: p.Title, Message: p.Detail, Reload: int(p.RetryAfter.Seconds())})
		return
	}
	p.Type = "about:blank"
	write(w, p.Status, "application/problem+json", p)
}

func setRetryAfter(w http.ResponseWriter, d time.Duration) {
	if d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	}
}

func answer(w http.ResponseWriter, status int, v any) { write(w, status, "application/json", v) }

func write(w http.ResponseWriter, status int, kind string, v any) {
	w.Header().Set("Content-Type", kind)
	uncached(w.Header())
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// uncached keeps an answer out of every cache. The Control UI's service worker
// caches what it fetches whatever Cache-Control says, but it can not store an
// answer with Vary: *.
func uncached(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "*")
}
