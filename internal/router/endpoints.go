package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"openclaw-sandbox/internal/chat"
	"openclaw-sandbox/internal/sandbox"
)

func (rt *Router) readyz(w http.ResponseWriter) {
	status, ready := http.StatusOK, true
	if rt.draining() || !rt.catalog.Ready() {
		status, ready = http.StatusServiceUnavailable, false
	}
	answer(w, status, map[string]any{"ready": ready, "draining": rt.draining(), "catalog_age_ms": rt.catalog.Age().Milliseconds()})
}

// status says how a sandbox is, and never wakes it.
func (rt *Router) status(w http.ResponseWriter, c call) {
	out := map[string]any{"user": c.user}
	if i, ok := rt.catalog.Lookup(c.user); ok {
		out["status"], out["generation"], out["node"] = "running", i.Generation, i.Node
	} else if f, ok := rt.launcher.Flight(c.user); ok {
		p, _ := f.Progress()
		out["status"], out["progress"] = "starting", p
		if p.Phase == sandbox.PhaseFailed {
			out["status"] = "failed"
		}
	} else {
		out["status"] = "stopped"
	}
	answer(w, http.StatusOK, out)
}

// start wakes a sandbox because a person said so, also after a failure.
func (rt *Router) start(w http.ResponseWriter, r *http.Request, c call) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		rt.refuse(w, r, problem{Status: http.StatusMethodNotAllowed, Title: "POST only", Detail: "Send a POST to start the sandbox."})
		return
	}
	if _, ok := rt.catalog.Lookup(c.user); !ok {
		rt.launcher.Wake(c.user, true)
	}
	if r.Header.Get("Sec-Fetch-Mode") == "navigate" { // the button, without JavaScript
		http.Redirect(w, r, c.base+"/", http.StatusSeeOther)
		return
	}
	rt.status(w, c)
}

// beat keeps proxies between here and the browser from closing a silent stream.
const beat = 15 * time.Second

// events streams a start's progress as server-sent events, and ends with one
// "ready" or "failed". It never wakes.
func (rt *Router) events(w http.ResponseWriter, r *http.Request, c call) {
	s := newStream(w)
	f, flying := rt.launcher.Flight(c.user)
	if _, ok := rt.catalog.Lookup(c.user); ok {
		s.send("ready", sandbox.Progress{Phase: sandbox.PhaseReady})
		return
	}
	if !flying {
		s.send("failed", sandbox.Progress{Phase: sandbox.PhaseFailed, Message: "The sandbox is stopped."})
		return
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		p, changed := f.Progress()
		switch p.Phase {
		case sandbox.PhaseFailed:
			s.send("failed", p)
			return
		case sandbox.PhaseReady:
			if _, ok := rt.catalog.Lookup(c.user); ok {
				s.send("ready", p)
				return
			}
		}
		s.send("progress", p)
		select {
		case <-changed:
		case <-f.Done():
			if p, _ := f.Progress(); p.Phase == sandbox.PhaseReady {
				s.send("ready", p)
				return
			}
		case <-tick.C:
			s.comment()
		case <-r.Context().Done():
			return
		}
	}
}

// stream writes server-sent events.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter) stream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	return stream{w, http.NewResponseController(w)}
}

func (s stream) send(event string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, b); err != nil {
		return err
	}
	return s.rc.Flush()
}

func (s stream) comment() {
	io.WriteString(s.w, ":\n\n")
	s.rc.Flush()
}

// maxChat bounds the body of POST /api/chat.
const maxChat = 1 << 20

// chat answers POST /api/chat: {"message", "session", "stream"} → {"reply"}, or
// server-sent events "delta" {"text"} and one "final" {"reply"} or "error".
func (rt *Router) chat(w http.ResponseWriter, r *http.Request, c call) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		rt.refuse(w, r, problem{Status: http.StatusMethodNotAllowed, Title: "POST only", Detail: `Send a POST with {"message": "…"}.`})
		return
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		rt.refuse(w, r, problem{Status: http.StatusUnsupportedMediaType, Title: "JSON only", Detail: "Send Content-Type: application/json."})
		return
	}
	var in struct {
		Message string `json:"message"`
		Session string `json:"session"`
		Stream  bool   `json:"stream"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxChat)).Decode(&in); err != nil || strings.TrimSpace(in.Message) == "" {
		rt.refuse(w, r, problem{Status: http.StatusBadRequest, Title: "No message", Detail: `The body must be JSON with a "message" that is not empty, of at most 1 MB.`})
		return
	}
	i, ok := rt.catalog.Lookup(c.user)
	if !ok {
		var failure *problem
		if i, failure = rt.hold(r, c.user); failure != nil {
			rt.refuse(w, r, *failure)
			return
		}
	}
	h := http.Header{}
	rt.proxy.SetIdentity(h, r, string(c.user))
	client, err := chat.Dial(r.Context(), i.Addr, r.Host, h, rt.proxy.Dial)
	if err != nil {
		rt.chatFailed(w, r, err)
		return
	}
	defer client.Close()
	if !in.Stream && !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		reply, err := client.Say(in.Session, in.Message, nil)
		if err != nil {
			rt.chatFailed(w, r, err)
			return
		}
		answer(w, http.StatusOK, map[string]string{"reply": reply})
		return
	}
	s := newStream(w)
	reply, err := client.Say(in.Session, in.Message, func(text string) error { return s.send("delta", map[string]string{"text": text}) })
	if err != nil {
		rt.log.Warn("a streamed chat broke off", "user", c.user, "error", err)
		s.send("error", map[string]string{"detail": chatError(err)})
		return
	}
	s.send("final", map[string]string{"reply": reply})
}

func chatError(err error) string {
	if errors.Is(err, chat.ErrRefused) {
		return "The gateway did not take the message; look at the sandbox's log."
	}
	return "The connection to the gateway broke; try again."
}

func (rt *Router) chatFailed(w http.ResponseWriter, r *http.Request, err error) {
	rt.log.Warn("a chat failed", "error", err)
	rt.refuse(w, r, problem{Status: http.StatusBadGateway, Title: "No reply", Detail: chatError(err), RetryAfter: retryOther})
}
