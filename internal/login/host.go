package login

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"strings"

	"openclaw-sandbox/internal/hostname"
	"openclaw-sandbox/internal/sandbox"
)

func (l *Login) atDomain(r *http.Request) bool {
	return !strings.HasSuffix(hostname.Of(r.Host), "."+l.config.Domain)
}

// domainHost is <domain> with the port that the browser uses.
func (l *Login) domainHost(r *http.Request) string {
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		return net.JoinHostPort(l.config.Domain, port)
	}
	return l.config.Domain
}

// userOf checks that host is a sandbox's, at the port of this request.
func (l *Login) userOf(r *http.Request, host string) (sandbox.User, error) {
	name, ok := strings.CutSuffix(host, "."+l.domainHost(r))
	if !ok {
		return "", sandbox.ErrBadUser
	}
	return sandbox.ParseUser(name)
}

// local is a path of this host, whatever was asked for: "//host" and "/\host" name others.
func local(path string) string {
	bad := func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsFunc(path, bad) || len(path) > maxReturn {
		return "/"
	}
	return path
}

func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
