package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/chat"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/sandbox"
)

func (rt *Router) readyz(w http.ResponseWriter) {
	draining := false
	select {
	case <-rt.draining:
		draining = true
	default:
	}
	status, ready := http.StatusOK, rt.catalog.Ready() && identity.Ready(rt.identity) && !draining
	if !ready {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, map[string]any{"ready": ready, "draining": draining, "catalog_age_ms": rt.catalog.Age().Milliseconds()})
}

// accountTimeout bounds what a status asks Consul for.
const accountTimeout = 2 * time.Second

// status says how a sandbox is, and never wakes it.
func (rt *Router) status(w http.ResponseWriter, r *http.Request, c call) {
	out := map[string]any{"user": c.user}
	dormant, state, registered := rt.catalog.Dormant(c.user)
	asleep := registered && state == catalog.Asleep
	if i, ok := rt.catalog.Lookup(c.user); ok {
		registered = true
		out["status"], out["generation"], out["node"] = "running", i.Generation, i.Node
	} else if f, ok := rt.launcher.Flight(c.user); ok {
		p, _ := f.Progress()
		out["status"], out["progress"] = "starting", p
		if p.Phase == sandbox.PhaseFailed {
			out["status"] = "failed"
		}
	} else if registered {
		out["status"], out["generation"], out["node"] = "unresponsive", dormant.Generation, dormant.Node
		if asleep {
			out["status"] = "frozen"
		}
	} else {
		out["status"] = "stopped"
	}
	if rt.accounts != nil {
		ctx, cancel := context.WithTimeout(r.Context(), accountTimeout)
		defer cancel()
		if a, err := rt.accounts.Account(ctx, c.user, registered, asleep); err != nil {
			rt.log.Debug("tell why a sandbox is as it is", "user", c.user, "error", err)
		} else {
			out["idle"] = a
		}
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
	rt.config.Audit.Start(r, c.who, c.user)
	var f Flight
	if _, ok := rt.catalog.Lookup(c.user); !ok {
		f = rt.launcher.Wake(c.user, true)
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" {
		// The button, without JavaScript: back to what was asked for.
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		to := r.PostFormValue("to")
		if !local(to) {
			to = c.base + "/"
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	if f != nil && over(f) {
		// Not even begun: a limit, which no status would show afterwards.
		if failure := ended(r.Context(), f); failure != nil {
			rt.refuse(w, r, ofFailure(failure))
			return
		}
	}
	rt.status(w, r, c)
}

// maxForm bounds the body of the retry button's form.
const maxForm = 64 << 10

// local reports that a redirect to the address stays on this origin.
func local(to string) bool {
	return strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//") && !strings.ContainsAny(to, "\\\r\n")
}

// beat keeps proxies between here and the browser from closing a silent stream.
const beat = 15 * time.Second

// events streams a start's progress as server-sent events, and ends with one
// "ready" or "failed". The page that follows may have been served by another
// router, or before a restart of this one; so its stream may wake, as the
// navigation before it might, but not that of a page of another origin.
func (rt *Router) events(w http.ResponseWriter, r *http.Request, c call) {
	if !ownPage(r) {
		rt.config.Audit.Refused("denied", r, "caller", c.who.Person(), "user", c.user, "reason", anotherOrigin)
		rt.refuse(w, r, problem{Status: http.StatusForbidden, Title: "Cross-origin request", Detail: "A page of another origin may not follow a start."})
		return
	}
	s := newStream(w)
	if _, ok := rt.catalog.Lookup(c.user); ok {
		s.send("ready", sandbox.Progress{Phase: sandbox.PhaseReady})
		return
	}
	f := rt.launcher.Wake(c.user, false)
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		p, changed := f.Progress()
		event := "progress"
		if over(f) {
			if p, _ = f.Progress(); p.Phase == sandbox.PhaseFailed {
				event = "failed"
			} else {
				event = "ready"
			}
		}
		if err := s.send(event, p); err != nil || event != "progress" {
			return
		}
		select {
		case <-changed:
		case <-f.Done():
		case <-tick.C:
			s.comment()
		case <-r.Context().Done():
			return
		case <-rt.draining: // the browser reconnects, to another router
			return
		}
	}
}

func over(f Flight) bool {
	select {
	case <-f.Done():
		return true
	default:
		return false
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
	uncached(h)
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

func (s stream) comment() error {
	if _, err := io.WriteString(s.w, ":\n\n"); err != nil {
		return err
	}
	return s.rc.Flush()
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
	var client *chat.Client
	err := rt.reach(w, r, c, func(i catalog.Instance) (err error) {
		rt.proxy.Note(string(c.user), c.kind.active())
		h := http.Header{}
		rt.proxy.SetIdentity(h, r, string(c.user))
		client, err = chat.Dial(r.Context(), i.Addr, r.Host, h, chat.ToTalk, rt.proxy.Dial)
		return err
	})
	if err != nil {
		rt.chatFailed(w, r, err)
		return
	}
	if client == nil {
		return // it was answered
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
	reply, err := client.Say(in.Session, in.Message, func(text string) error {
		if text == "" {
			return s.comment()
		}
		return s.send("delta", map[string]string{"text": text})
	})
	if err != nil {
		rt.log.Warn("a streamed chat broke off", "user", c.user, "error", err)
		s.send("error", map[string]string{"detail": chatError(err)})
		return
	}
	s.send("final", map[string]string{"reply": reply})
}

// chatError is what went wrong, for the one who chats.
func chatError(err error) string {
	var turn *chat.TurnError
	var refused *chat.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Method == "chat.send":
		return "The gateway did not take the message: " + refused.Message
	case errors.As(err, &turn) && turn.Message != "":
		return "The assistant did not finish: " + turn.Message
	case errors.As(err, &turn):
		return "The assistant did not finish; its log says why."
	case errors.Is(err, chat.ErrRefused):
		return "The gateway did not let the router in; the sandbox's log says why."
	}
	return "The connection to the gateway broke; try again."
}

func (rt *Router) chatFailed(w http.ResponseWriter, r *http.Request, err error) {
	p := problem{Status: http.StatusBadGateway, Title: "No reply", Detail: chatError(err), RetryAfter: retryOther}
	var refused *chat.RefusedError
	if errors.As(err, &refused) && refused.Method == "chat.send" && refused.Code == chat.CodeInvalid {
		p.Status, p.RetryAfter = http.StatusBadRequest, 0
	}
	rt.log.Warn("a chat failed", "status", p.Status, "error", err)
	rt.refuse(w, r, p)
}
