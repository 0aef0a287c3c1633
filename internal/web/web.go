// Package web holds the pages that people see while there is no gateway to show:
// a start's progress, and an error with its next step. Everything is embedded,
// and works without JavaScript by reloading.
package web

import (
	"bytes"
	"crypto/rand"
	"embed"
	"fmt"
	"html/template"
	"net/http"

	"openclaw-sandbox/internal/sandbox"
)

//go:embed page.html.tmpl
var files embed.FS

var pages = template.Must(template.ParseFS(files, "page.html.tmpl"))

// Page is what a page shows.
type Page struct {
	User     sandbox.User
	Title    string
	Message  string
	Progress sandbox.Progress
	// Base is the path below which the router's own endpoints lie, without a slash
	// at its end: "" or "/u/alice".
	Base string
	// Live pages follow the start and enter by themselves; others stand still.
	Live bool
	// Retry shows a button that starts the sandbox again.
	Retry bool
	Nonce string
}

// reloadSeconds is how often a page without JavaScript looks again.
const reloadSeconds = 3

// Write answers with the page. It is never cached, and runs only its own script.
func Write(w http.ResponseWriter, status int, p Page) {
	p.Nonce = rand.Text()
	var body bytes.Buffer
	if err := pages.Execute(&body, p); err != nil {
		http.Error(w, p.Title+"\n"+p.Message, status)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; style-src 'nonce-%[1]s'; script-src 'nonce-%[1]s'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'", p.Nonce))
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// Steps are the phases that a page shows, in order, in a person's words.
func (p Page) Steps() []struct {
	Phase sandbox.Phase
	Label string
} {
	return []struct {
		Phase sandbox.Phase
		Label string
	}{
		{sandbox.PhaseQueued, "Finding a place to run"},
		{sandbox.PhaseClaiming, "Taking your saved state"},
		{sandbox.PhaseRestoring, "Restoring your files and chats"},
		{sandbox.PhaseStarting, "Starting your assistant"},
		{sandbox.PhaseReady, "Ready"},
	}
}

// Reload is the pause of a page without JavaScript.
func (p Page) Reload() int { return reloadSeconds }
