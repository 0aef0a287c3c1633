package router

import (
	"net"
	"net/http"
	"strings"

	"openclaw-sandbox/internal/sandbox"
)

// reachesSandbox reports that a path is answered by the sandbox, or by what it says.
func reachesSandbox(path string) bool {
	return path != "/api/status" && !strings.HasPrefix(path, "/_sandbox/")
}

// sendHome keeps a sandbox's content away from the domain's origin. A person who opens a
// page is redirected to the sandbox's own host, deep link included (a browser keeps the
// fragment); anything else is refused, since a redirect would lose its body or its frames.
func (rt *Router) sendHome(w http.ResponseWriter, r *http.Request, c call) {
	host := rt.hostOf(r, c.user)
	if c.kind != kindPage {
		rt.refuse(w, r, problem{Status: http.StatusForbidden, Title: "Not at this address",
			Detail: "Sandboxes are served at their own host: use " + host + ", or send a token as Authorization: Bearer."})
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	// An address without a scheme keeps the scheme that the browser uses now.
	http.Redirect(w, r, "//"+host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
}

// hostOf is the host of a user's sandbox, with the port that the client used.
func (rt *Router) hostOf(r *http.Request, u sandbox.User) string {
	host := string(u) + "." + rt.config.Domain
	if _, port, err := net.SplitHostPort(r.Host); err == nil && port != "" {
		return net.JoinHostPort(host, port)
	}
	return host
}
