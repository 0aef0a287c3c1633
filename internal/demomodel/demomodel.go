// Package demomodel is a language model that needs no internet and no key: an
// OpenAI-compatible server that answers every message with a short text that
// quotes it. It is for development and tests.
package demomodel

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Model is the one model that is served.
const Model = "demo-1"

// maxRequest bounds a request's body; an agent's turn sends about 60 KB.
const maxRequest = 32 << 20

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// text is the message's text, whichever of the API's two shapes it has.
func (m message) text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct {
		Text string `json:"text"`
	}
	json.Unmarshal(m.Content, &parts)
	for _, p := range parts {
		s += p.Text
	}
	return s
}

// Handler serves GET /v1/models and POST /v1/chat/completions, streamed or not.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		reply(w, map[string]any{"object": "list", "data": []any{map[string]string{"id": Model, "object": "model", "owned_by": "openclaw-sandbox"}}})
	})
	mux.HandleFunc("POST /v1/chat/completions", complete)
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func complete(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Messages []message `json:"messages"`
		Stream   bool      `json:"stream"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&in); err != nil {
		http.Error(w, `{"error":{"message":"the body is not valid JSON"}}`, http.StatusBadRequest)
		return
	}
	words, pause := answer(lastSaid(in.Messages))
	usage := map[string]int{"prompt_tokens": 10, "completion_tokens": len(words), "total_tokens": 10 + len(words)}
	base := map[string]any{"id": "chatcmpl-demo", "created": time.Now().Unix(), "model": Model}
	if !in.Stream {
		base["object"], base["usage"] = "chat.completion", usage
		base["choices"] = []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]string{"role": "assistant", "content": strings.Join(words, "")}}}
		reply(w, base)
		return
	}
	base["object"] = "chat.completion.chunk"
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	send := func(choices []any, more map[string]int) bool {
		base["choices"] = choices
		if more != nil {
			base["usage"] = more
		}
		b, err := json.Marshal(base)
		if err == nil {
			_, err = fmt.Fprintf(w, "data: %s\n\n", b)
		}
		return err == nil && rc.Flush() == nil
	}
	choice := func(delta map[string]string, finish any) []any {
		return []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}}
	}
	ok := send(choice(map[string]string{"role": "assistant", "content": ""}, nil), nil)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for _, word := range words {
		if !ok {
			return
		}
		ok = send(choice(map[string]string{"content": word}, nil), nil)
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
	send(choice(map[string]string{}, "stop"), nil)
	send([]any{}, usage)
	fmt.Fprint(w, "data: [DONE]\n\n")
}

// lastSaid is what the person said last. OpenClaw puts context of its own into
// messages of the user's role; it marks them.
func lastSaid(messages []message) string {
	for i := len(messages) - 1; i >= 0; i-- {
		if t := messages[i].text(); messages[i].Role == "user" && !strings.Contains(t, "OPENCLAW_INTERNAL_CONTEXT") {
			return t
		}
	}
	return ""
}

// slow is a directive for tests: SLOW:<pieces>:<milliseconds between them>.
var slow = regexp.MustCompile(`SLOW:(\d{1,4}):(\d{1,5})`)

const (
	wordPause = 20 * time.Millisecond
	quoted    = 200 // characters of a message that are quoted
)

func answer(said string) (words []string, pause time.Duration) {
	if m := slow.FindStringSubmatch(said); m != nil {
		n, _ := strconv.Atoi(m[1])
		ms, _ := strconv.Atoi(m[2])
		for i := range n {
			words = append(words, fmt.Sprintf("w%d ", i))
		}
		return words, max(1, time.Duration(ms)) * time.Millisecond
	}
	// OpenClaw puts its own paragraphs around what was typed.
	paragraphs := strings.Split(strings.TrimSpace(said), "\n\n")
	for len(paragraphs) > 1 && strings.HasPrefix(paragraphs[len(paragraphs)-1], "Runtime: ") {
		paragraphs = paragraphs[:len(paragraphs)-1]
	}
	said = strings.TrimSpace(paragraphs[len(paragraphs)-1])
	if _, rest, ok := strings.Cut(said, "] "); ok && strings.HasPrefix(said, "[") {
		said = rest // a time stamp
	}
	if r := []rune(said); len(r) > quoted {
		said = string(r[:quoted]) + "…"
	}
	text := "I am the demo model: I answer without internet, so not cleverly. You said: " + said
	return strings.SplitAfter(text, " "), wordPause
}
