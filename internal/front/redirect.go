package front

import (
	"net"
	"net/http"

	"openclaw-sandbox/internal/hostname"
)

// redirect sends everybody to the same address with https (RFC 9110 section
// 15.4.9: 308 keeps the method). A host that the router does not serve is refused:
// the redirect must not lead elsewhere.
func redirect(domain, httpsPort string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostname.Of(r.Host)
		if !serves(domain, host) {
			http.Error(w, "This router serves "+domain+" and names below it.", http.StatusMisdirectedRequest)
			return
		}
		// Who came to the standard port finds https at its own, too, whatever the
		// listener's port is behind a mapping.
		if _, port, err := net.SplitHostPort(r.Host); err == nil && port != "" && port != "80" && httpsPort != "443" {
			host = net.JoinHostPort(host, httpsPort)
		}
		w.Header().Set("Connection", "close")
		http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusPermanentRedirect)
	})
}
