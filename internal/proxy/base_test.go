package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// document is the shape of the Control UI's, as gateway 2026.9.6 sends it.
const document = `<!doctype html>
<html data-openclaw-control-ui-base-path="" data-openclaw-terminal-enabled="true" lang="en">
<link rel="icon" type="image/svg+xml" href="/favicon.svg" />
<script data-cfasync="false">palette.href = base + "/themes/" + theme; x = '<a href="/y">'; y = 'src="/z"';</script>
<script data-cfasync="false" type="module" crossorigin src="/assets/index.js"></script>
<link rel="stylesheet" crossorigin href="/assets/core.css"><a href="https://docs.openclaw.ai/">d</a><link href="//cdn.example/x">`

const rebased = `<!doctype html>
<html data-openclaw-control-ui-base-path="/u/alice" data-openclaw-terminal-enabled="true" lang="en">
<link rel="icon" type="image/svg+xml" href="/u/alice/favicon.svg" />
<script data-cfasync="false">palette.href = base + "/themes/" + theme; x = '<a href="/y">'; y = 'src="/z"';</script>
<script data-cfasync="false" type="module" crossorigin src="/u/alice/assets/index.js"></script>
<link rel="stylesheet" crossorigin href="/u/alice/assets/core.css"><a href="https://docs.openclaw.ai/">d</a><link href="//cdn.example/x">`

func TestRebase(t *testing.T) {
	other := `<html><script src="/assets/x.js"></script>`
	long := document + strings.Repeat("x", maxDocument)
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kept := r.URL.Path == "/assets/x.js" || r.Header.Get("X-Root") != ""
		if enc := r.Header.Get("Accept-Encoding"); (enc != "") != kept {
			t.Errorf("%s: Accept-Encoding = %q, want it kept: %t", r.URL.Path, enc, kept)
		}
		h := w.Header()
		switch r.URL.Path {
		case "/moved":
			h.Set("Location", "/chat?x=1")
			w.WriteHeader(http.StatusFound)
		case "/away":
			h.Set("Location", "//other.example/")
			w.WriteHeader(http.StatusFound)
		case "/other":
			h.Set("Content-Type", "text/html")
			io.WriteString(w, other)
		case "/long":
			h.Set("Content-Type", "text/html")
			io.WriteString(w, long)
		case "/assets/x.js":
			h.Set("Content-Type", "text/javascript")
			io.WriteString(w, document)
		case "/zipped":
			h.Set("Content-Type", "text/html")
			h.Set("Content-Encoding", "gzip")
			io.WriteString(w, document)
		default:
			h.Set("Content-Type", "text/html; charset=utf-8")
			h.Set("ETag", `"1"`)
			h.Set("Content-Length", fmt.Sprint(len(document)))
			io.WriteString(w, document)
		}
	}))
	defer gateway.Close()
	base := "/u/alice"
	srv := front(t, Config{}, func() Target { c := to("g1", gateway)(); c.Base = base; return c })
	get := func(method, path string, header ...string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", "gzip")
		for _, h := range header {
			r.Header.Set(h, "1")
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return resp, string(b)
	}
	for path, want := range map[string]string{"/": rebased, "/chat/main": rebased, "/other": other, "/long": long, "/assets/x.js": document, "/zipped": document} {
		if resp, got := get("GET", path); got != want || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s\n%.900s\nwant\n%.900s", path, resp.Status, got, want)
		}
	}
	if resp, _ := get("GET", "/"); resp.Header.Get("ETag") != "" {
		t.Error("the changed document has the ETag of the gateway's")
	}
	if resp, _ := get("HEAD", "/"); resp.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %s", resp.Status)
	}
	for path, want := range map[string]string{"/moved": "/u/alice/chat?x=1", "/away": "//other.example/"} {
		if resp, _ := get("GET", path); resp.Header.Get("Location") != want {
			t.Errorf("%s: Location = %q, want %q", path, resp.Header.Get("Location"), want)
		}
	}
	base = ""
	if resp, got := get("GET", "/", "X-Root"); got != document || resp.Header.Get("ETag") == "" {
		t.Error("at the root the document was changed")
	}
}
