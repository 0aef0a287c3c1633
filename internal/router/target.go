package router

import (
	"errors"
	"net"
	"net/http"
	"strings"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/forwarded"
	"openclaw-sandbox/internal/hostname"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/sandbox"
)

// errMisdirected: the host is none of ours. It is also the guard against DNS
// rebinding: a page of another name must not reach a router on loopback.
var errMisdirected = errors.New("this router does not serve that host")

// target is whose sandbox a request is for.
type target struct {
	user sandbox.User // "" for the caller's own
	base string       // the path that was stripped, "" or "/u/<user>"
	// own: the host is the user's, so that what the sandbox sends has an origin to itself.
	own bool
}

// resolve finds the target by host and path, and strips the path's prefix from
// r. It returns sandbox.ErrBadUser or errMisdirected.
func resolve(r *http.Request, domain string) (target, error) {
	host := hostname.Of(r.Host)
	if name, ok := strings.CutSuffix(host, "."+domain); ok {
		u, err := sandbox.ParseUser(name)
		return target{user: u, own: err == nil}, err
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); host != domain && (ip == nil || !ip.IsLoopback()) {
		return target{}, errMisdirected
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/u/")
	if !ok {
		return target{}, nil
	}
	name, path, slash := strings.Cut(rest, "/")
	u, err := sandbox.ParseUser(name)
	if err != nil {
		return target{}, err
	}
	t := target{user: u, base: "/u/" + name}
	if !slash && classify(r) == kindPage {
		return t, errNoSlash
	}
	r.URL.Path = "/" + path
	// The raw path has the same prefix: a valid user needs no escaping.
	if raw, ok := strings.CutPrefix(r.URL.RawPath, t.base); ok && strings.HasPrefix(raw, "/") {
		r.URL.RawPath = raw
	} else {
		r.URL.RawPath = ""
	}
	return t, nil
}

// errNoSlash: in the address bar /u/alice must become /u/alice/, or relative
// addresses break. The Control UI itself opens its WebSocket at /u/alice.
var errNoSlash = errors.New("the path needs a slash at its end")

// kind is what a request is, as far as waking is concerned.
type kind int

const (
	kindAPI        kind = iota // a program: may wake, is held
	kindPage                   // a person opens a page: may wake, sees the progress
	kindBackground             // a page's own requests and reconnects: may not wake
)

// active is what a request says of its user's activity.
func (k kind) active() proxy.Kind {
	return [...]proxy.Kind{kindAPI: proxy.KindCall, kindPage: proxy.KindPage, kindBackground: proxy.KindBackground}[k]
}

// activity is the same for who counts how long a sandbox is idle.
func (k kind) activity() activity.Kind {
	return [...]activity.Kind{kindAPI: activity.Call, kindPage: activity.Page, kindBackground: activity.None}[k]
}

// classify decides by Sec-Fetch-Mode and -Dest (every current browser sends them
// to a secure or loopback origin), then by what older browsers and plain-HTTP
// origins leave: Origin on an upgrade, X-Requested-With, Accept.
func classify(r *http.Request) kind {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	upgrade := isUpgrade(r)
	dest := r.Header.Get("Sec-Fetch-Dest")
	switch mode := r.Header.Get("Sec-Fetch-Mode"); {
	case prefetch(r):
		return kindBackground // a guess of the browser, not a wish of its user
	case mode == "navigate" && read && !upgrade && (dest == "" || dest == "document"):
		return kindPage
	case mode != "":
		return kindBackground
	case upgrade && r.Header.Get("Origin") != "":
		return kindBackground
	case r.Header.Get("X-Requested-With") != "":
		return kindBackground
	case read && !upgrade && strings.Contains(r.Header.Get("Accept"), "text/html"):
		return kindPage
	}
	return kindAPI
}

func prefetch(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Sec-Purpose")+r.Header.Get("Purpose"), "prefetch")
}

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// dropForeignUpgrade removes an offer to change to another protocol than WebSocket, which a
// server may ignore (RFC 9110 section 7.8): curl and Java's client offer h2c with ordinary
// requests. A gateway must not see it, since it could tunnel requests past the router.
func dropForeignUpgrade(r *http.Request) {
	if _, offers := r.Header["Upgrade"]; !offers || isUpgrade(r) {
		return
	}
	r.Header.Del("Upgrade")
	r.Header.Del("Http2-Settings")
	var kept []string
	for _, line := range r.Header.Values("Connection") {
		for option := range strings.SplitSeq(line, ",") {
			switch option = strings.TrimSpace(option); strings.ToLower(option) {
			case "", "upgrade", "http2-settings":
			default:
				kept = append(kept, option)
			}
		}
	}
	if r.Header.Del("Connection"); len(kept) > 0 {
		r.Header.Set("Connection", strings.Join(kept, ", "))
	}
}

// crossOrigin reports a browser's upgrade from a page of another origin. Browsers
// send Origin on every WebSocket, and no same-origin policy stops them.
func crossOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || !isUpgrade(r) {
		return false
	}
	scheme, host, ok := strings.Cut(origin, "://")
	if !ok || !strings.EqualFold(host, r.Host) {
		return true
	}
	// Another scheme is another origin: on a network that somebody else controls, a page of
	// http://alice.<domain> is theirs. Behind a proxy that is not trusted it is not known.
	used := forwarded.Scheme(r)
	if used == "" && r.TLS != nil {
		used = "https"
	}
	return used != "" && !strings.EqualFold(scheme, used)
}

// ownPage reports that a browser's request comes from a page of the same origin, or
// that it can not tell.
func ownPage(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "" || site == "same-origin" || site == "none"
}
