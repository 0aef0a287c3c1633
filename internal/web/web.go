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

//go:embed page.html.tmpl page.css page.js
var files embed.FS

var pages = template.Must(template.New("page.html.tmpl").Funcs(template.FuncMap{"size": size}).ParseFS(files, "page.html.tmpl"))

// Style and script are inlined, so that a page is one answer.
var (
	style  = template.CSS(read("page.css"))
	script = template.JS(read("page.js"))
)

func read(name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return string(b)
}

// Page is what a page shows.
type Page struct {
	User    sandbox.User
	Title   string // empty on a Live page: by its progress
	Message string // one sentence for a person
	// Base is the path below which the router's own endpoints lie, without a slash
	// at its end: "" or "/u/alice".
	Base string
	// To is the path and query that the person asked for, and comes back to.
	To string
	// Live pages follow the start from Progress on, and enter by themselves.
	Live     bool
	Progress sandbox.Progress
	// Reload is after how many seconds a page that is not Live looks again; 0: never.
	Reload int
}

// noScriptReload is how often a Live page without JavaScript looks again, in seconds.
const noScriptReload = 3

// view is a Page with what the template needs besides.
type view struct {
	Page
	Style  template.CSS
	Script template.JS
	Nonce  string
	Known  known
}

// known is what page.js needs to know of failures.
type known struct {
	Titles map[sandbox.Reason]string `json:"titles"`
	Lines  map[sandbox.Reason]int    `json:"lines"`
}

// Write answers with the page. It is never cached, and runs only its own script.
func Write(w http.ResponseWriter, status int, p Page) {
	v := view{Page: p, Style: style, Script: script, Nonce: rand.Text(), Known: known{titles, failedAt}}
	if v.Live {
		v.Title, v.Message = Title(p.Progress), p.Progress.Message
	}
	var body bytes.Buffer
	if err := pages.Execute(&body, v); err != nil {
		http.Error(w, v.Title+"\n"+v.Message, status)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; style-src 'nonce-%[1]s'; script-src 'nonce-%[1]s'; connect-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'", v.Nonce))
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// titles are the headlines of failures; "" is that of the others.
var titles = map[sandbox.Reason]string{
	sandbox.ReasonNoCapacity:       "No room right now",
	sandbox.ReasonStoreUnreachable: "Your saved state can’t be reached",
	sandbox.ReasonStoreDenied:      "Your saved state can’t be opened",
	sandbox.ReasonStateCorrupt:     "Your saved state is damaged",
	sandbox.ReasonStateTooLarge:    "Your saved state is too large",
	sandbox.ReasonFenced:           "Started somewhere else",
	sandbox.ReasonExited:           "Your sandbox stopped while starting",
	sandbox.ReasonNotReady:         "Your sandbox takes too long",
	sandbox.ReasonUnanswered:       "Your sandbox does not answer",
	sandbox.ReasonConfig:           "Not set up correctly",
	sandbox.ReasonLimit:            "No room right now",
	sandbox.ReasonQueueFull:        "Too many at once",
	sandbox.ReasonTooOften:         "Started too often",
	"":                             "Your sandbox could not be started",
}

// Title is the headline of a start.
func Title(p sandbox.Progress) string {
	switch p.Phase {
	case sandbox.PhaseFailed:
		if t, ok := titles[p.Reason]; ok {
			return t
		}
		return titles[""]
	case sandbox.PhaseReady:
		return "Ready"
	}
	if p.Position > 0 {
		return "Waiting in line"
	}
	return "Waking your sandbox"
}

// Place is a place in line for a person: "next", then "2nd in line" and so on.
func (p Page) Place() string {
	switch n := p.Progress.Position; {
	case n <= 0:
		return ""
	case n == 1:
		return "next"
	case n%100 >= 11 && n%100 <= 13:
		return fmt.Sprintf("%dth in line", n)
	case n%10 == 1:
		return fmt.Sprintf("%dst in line", n)
	case n%10 == 2:
		return fmt.Sprintf("%dnd in line", n)
	case n%10 == 3:
		return fmt.Sprintf("%drd in line", n)
	default:
		return fmt.Sprintf("%dth in line", n)
	}
}

// Failed reports whether the start has ended without a gateway.
func (p Page) Failed() bool { return p.Live && p.Progress.Phase == sandbox.PhaseFailed }

// Counted reports whether bytes are being restored, and how many is known.
func (p Page) Counted() bool {
	return p.Progress.Phase == sandbox.PhaseRestoring && p.Progress.Total > 0
}

// Refresh is the pause before a page that runs no script looks again, in seconds.
func (p Page) Refresh() int {
	switch {
	case p.Failed():
		return 0 // a failure waits for a person
	case p.Live:
		return noScriptReload
	}
	return p.Reload
}

// Step is a line of the progress.
type Step struct {
	Phase sandbox.Phase
	Label string
	State string // "done", "now", "failed" or ""
}

// steps are the phases in a person's words. Placed and claiming pass too quickly
// to be lines of their own.
var steps = []Step{
	{Phase: sandbox.PhaseQueued, Label: "Finding a place to run"},
	{Phase: sandbox.PhaseRestoring, Label: "Restoring your files and chats"},
	{Phase: sandbox.PhaseStarting, Label: "Starting your assistant"},
	{Phase: sandbox.PhaseReady, Label: "Opening it"},
}

// at is the line that a phase belongs to; -1 for a failure.
func at(p sandbox.Phase) int {
	switch p {
	case sandbox.PhaseQueued:
		return 0
	case sandbox.PhasePlaced, sandbox.PhaseClaiming, sandbox.PhaseRestoring:
		return 1
	case sandbox.PhaseStarting:
		return 2
	case sandbox.PhaseReady:
		return 3
	}
	return -1
}

// failedAt is the line that a reason belongs to, for a page that did not see how
// far the start came. The reasons that are not here can befall any.
var failedAt = map[sandbox.Reason]int{
	sandbox.ReasonNoCapacity: 0, sandbox.ReasonConfig: 0, sandbox.ReasonLimit: 0, sandbox.ReasonQueueFull: 0, sandbox.ReasonTooOften: 0,
	sandbox.ReasonStoreUnreachable: 1, sandbox.ReasonStoreDenied: 1, sandbox.ReasonStateCorrupt: 1, sandbox.ReasonStateTooLarge: 1, sandbox.ReasonFenced: 1,
	sandbox.ReasonExited: 2, sandbox.ReasonUnanswered: 2,
}

// Steps are the lines, with what is done and what is under way.
func (p Page) Steps() []Step {
	out := append([]Step(nil), steps...)
	now, state := at(p.Progress.Phase), "now"
	if p.Failed() {
		state = "failed"
		if line, ok := failedAt[p.Progress.Reason]; ok {
			now = line
		}
	}
	for i := range out {
		switch {
		case i < now:
			out[i].State = "done"
		case i == now:
			out[i].State = state
		}
	}
	return out
}

// size is a number of bytes for a person, as page.js writes it, too.
func size(n int64) string {
	const k = 1000
	switch {
	case n < k:
		return fmt.Sprintf("%d B", n)
	case n < k*k:
		return fmt.Sprintf("%.0f kB", float64(n)/k)
	case n < 100*k*k:
		return fmt.Sprintf("%.1f MB", float64(n)/k/k)
	case n < k*k*k:
		return fmt.Sprintf("%.0f MB", float64(n)/k/k)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/k/k/k)
}
