package proxy

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// A gateway does not know below which path the router serves it: the same one is
// reached by host, at the root, and by path. Its Control UI takes its addresses
// from one document: it says the base path in an attribute of <html> and names
// its first files from the root. So that document is changed on its way; whatever
// else the UI asks for then comes with the base.

// maxDocument is more than the Control UI's document has (18 kB in 2026.9).
const maxDocument = 1 << 20

var (
	baseAttribute = []byte(` data-openclaw-control-ui-base-path=""`)
	// rooted are addresses in tags; the text of a script must not change, since its
	// digest is in the page's policy.
	rooted = regexp.MustCompile(`(<(?:link|script)\b[^>]*?\s(?:href|src)=")(/[^/"])`)
)

// plain asks for a document that can be read on its way.
func plain(r *http.Request) {
	if path.Ext(r.URL.Path) == "" {
		r.Header.Del("Accept-Encoding")
	}
}

// rebase makes an answer fit below base.
func rebase(resp *http.Response, base string) error {
	if to := resp.Header.Get("Location"); strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//") {
		resp.Header.Set("Location", base+to)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "text/html" || resp.Header.Get("Content-Encoding") != "" || resp.Request.Method == http.MethodHead {
		return nil
	}
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return fmt.Errorf("read the gateway's document: %w", err)
	}
	rest := resp.Body
	if !bytes.Contains(head, baseAttribute) || len(head) == maxDocument {
		resp.Body = body{io.MultiReader(bytes.NewReader(head), rest), rest} // not the Control UI's
		return nil
	}
	head = bytes.Replace(head, baseAttribute, []byte(` data-openclaw-control-ui-base-path="`+base+`"`), 1)
	head = rooted.ReplaceAll(head, []byte("${1}"+base+"${2}"))
	resp.Body = body{bytes.NewReader(head), rest}
	resp.ContentLength = int64(len(head))
	resp.Header.Set("Content-Length", strconv.Itoa(len(head)))
	resp.Header.Del("ETag")
	return nil
}

type body struct {
	io.Reader
	io.Closer
}
