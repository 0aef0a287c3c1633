package web

import (
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"openclaw-sandbox/internal/sandbox"
)

func write(p Page) (*httptest.ResponseRecorder, string) {
	w := httptest.NewRecorder()
	Write(w, 503, p)
	return w, w.Body.String()
}

// Without JavaScript, the page says as much, and looks again by itself.
func TestWithoutScript(t *testing.T) {
	line := func(phase, state string) string { return `<li data-step="` + phase + `" class="` + state + `">` }
	const reload = `<noscript><meta http-equiv="refresh" content="3"></noscript>`
	for name, c := range map[string]struct {
		p          sandbox.Progress
		has, lacks []string
	}{
		"queued":    {sandbox.Progress{Phase: sandbox.PhaseQueued, Message: "Asking"}, []string{"Waking your sandbox", "Asking", reload, line("queued", "now"), line("restoring", "")}, nil},
		"in line":   {sandbox.Progress{Phase: sandbox.PhaseQueued, Position: 12, Message: "Many"}, []string{"Waiting in line", "12th in line", `"position":12`, line("queued", "now")}, nil},
		"placed":    {sandbox.Progress{Phase: sandbox.PhasePlaced}, []string{line("queued", "done"), line("restoring", "now")}, nil},
		"restoring": {sandbox.Progress{Phase: sandbox.PhaseRestoring, Done: 34_200_000, Total: 118_000_000}, []string{"34.2 MB of 118 MB", `max="118000000" value="34200000"`, line("restoring", "now")}, []string{`id="bytes" hidden`}},
		"starting":  {sandbox.Progress{Phase: sandbox.PhaseStarting}, []string{line("restoring", "done"), line("starting", "now"), `id="bytes" hidden`}, nil},
		"ready":     {sandbox.Progress{Phase: sandbox.PhaseReady}, []string{"<h1 id=\"title\">Ready</h1>", reload, line("ready", "now")}, nil},
		"failed": {sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonNoCapacity, Message: "Memory is exhausted."},
			[]string{"No room right now", "Memory is exhausted.", "no_capacity", `class="failed"`, `action="/u/alice/_sandbox/start">`, `value="/u/alice/chat?a=b"`, line("queued", "failed")}, []string{"http-equiv"}},
		"failed while restoring":       {sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonStateCorrupt}, []string{"Your saved state is damaged", line("queued", "done"), line("restoring", "failed"), line("starting", "")}, nil},
		"failed for an unknown reason": {sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: "new"}, []string{"Your sandbox could not be started"}, nil},
	} {
		_, body := write(Page{User: "alice", Base: "/u/alice", To: "/u/alice/chat?a=b", Live: true, Progress: c.p})
		for _, want := range c.has {
			if !strings.Contains(body, want) {
				t.Errorf("%s: the page lacks %s", name, want)
			}
		}
		for _, bad := range c.lacks {
			if strings.Contains(body, bad) {
				t.Errorf("%s: the page has %s", name, bad)
			}
		}
	}
}

func TestStillPages(t *testing.T) {
	if _, body := write(Page{Title: "Not yours", Message: "No."}); strings.Contains(body, "<script") || strings.Contains(body, "http-equiv") || strings.Contains(body, "Try again") {
		t.Error("a page of a lasting error runs or reloads")
	}
	if _, body := write(Page{Title: "Down", Reload: 5}); !strings.Contains(body, `http-equiv="refresh" content="5"`) || !strings.Contains(body, "Try again") {
		t.Error("a page of a passing error does not look again")
	}
}

// What came from a sandbox or a URL is text.
func TestEscapes(t *testing.T) {
	const evil = `</script><script>alert(1)</script>"'><img src=x onerror=alert(1)>`
	for _, live := range []bool{true, false} {
		_, body := write(Page{User: sandbox.User(evil), Title: evil, Message: evil, Base: evil, To: evil, Live: live,
			Progress: sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.Reason(evil), Message: evil}})
		if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img") {
			t.Errorf("live %t: foreign text became HTML", live)
		}
	}
}

// Nothing may run but our own script, and nothing may come from elsewhere.
func TestPolicy(t *testing.T) {
	w, body := write(Page{User: "alice", Live: true})
	csp := w.Header().Get("Content-Security-Policy")
	nonce := regexp.MustCompile(`script-src 'nonce-([A-Z0-9]+)'`).FindStringSubmatch(csp)
	if nonce == nil || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Fatalf("Content-Security-Policy = %q", csp)
	}
	for _, tag := range regexp.MustCompile(`<(?:script|style)[^>]*>`).FindAllString(body, -1) {
		if !strings.Contains(tag, `nonce="`+nonce[1]+`"`) {
			t.Errorf("%s would not run", tag)
		}
	}
	if again, _ := write(Page{}); strings.Contains(again.Header().Get("Content-Security-Policy"), nonce[1]) {
		t.Error("the nonce is not new")
	}
	if found := regexp.MustCompile(`(?:src|href)="https?:`).FindString(body); found != "" {
		t.Errorf("the page loads from elsewhere: %s", found)
	}
	if w.Header().Get("Cache-Control") != "no-store" || w.Code != 503 {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 34_000: "34 kB", 1_500_000: "1.5 MB", 118_000_000: "118 MB", 2_500_000_000: "2.5 GB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestPlace(t *testing.T) {
	for n, want := range map[int]string{0: "", 1: "next", 2: "2nd in line", 3: "3rd in line", 4: "4th in line", 11: "11th in line", 13: "13th in line", 21: "21st in line", 112: "112th in line"} {
		if got := (Page{Progress: sandbox.Progress{Position: n}}).Place(); got != want {
			t.Errorf("place %d: %q, want %q", n, got, want)
		}
	}
}
