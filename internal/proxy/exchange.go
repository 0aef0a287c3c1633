package proxy

import (
	"errors"
	"net/http"
	"strings"

	"openclaw-sandbox/internal/upstream"
)

// Guard makes up for what net/http does not tell a handler: a request in chunks may
// have come with a Content-Length as well. Whoever is before this server may have
// counted by that one, so that its connection must end with the answer (RFC 9112
// section 6.1). A server calls it first for every request.
func Guard(w http.ResponseWriter, r *http.Request) {
	if len(r.TransferEncoding) > 0 && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// exchange forwards a request that is no upgrade. Its error is that of Forward.
func (p *Proxy) exchange(w http.ResponseWriter, r *http.Request, t Target) error {
	h := p.headers.Get().(http.Header)
	defer func() { clear(h); p.headers.Put(h) }()
	upstream.EndToEnd(h, r.Header)
	p.SetIdentity(h, r, t.vouched())
	for name := range r.Trailer {
		if claims(name) {
			delete(r.Trailer, name) // only what is announced passes
		}
	}
	var modify func(*http.Response) error
	if t.Base != "" {
		plain(&http.Request{URL: r.URL, Header: h})
		modify = func(resp *http.Response) error { return rebase(resp, t.Base) }
	}
	err := p.pool(t).exchanges.Serve(w, r, h, modify)
	if err == nil {
		return nil
	}
	if errors.Is(err, upstream.ErrGone) {
		// A client that only ended what it sends would take silence for an empty 200.
		panic(http.ErrAbortHandler)
	}
	if _, ok := errors.AsType[*upstream.SilentError](err); ok {
		return &Unreached{Err: err, Sent: true}
	}
	if bad, ok := errors.AsType[*upstream.RequestError](err); ok {
		http.Error(w, bad.Error(), bad.Status)
		return nil
	}
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return large
	}
	if bad, ok := errors.AsType[*upstream.BodyError](err); ok {
		http.Error(w, bad.Error(), http.StatusBadRequest)
		return nil
	}
	return err
}

// isUpgrade tells whether r asks to switch protocols (RFC 9110 section 7.8).
func isUpgrade(r *http.Request) bool {
	if len(r.Header["Upgrade"]) == 0 || r.Header["Upgrade"][0] == "" {
		return false
	}
	for _, v := range r.Header["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.Trim(name, " \t"), "upgrade") {
				return true
			}
		}
	}
	return false
}
