package demomodel

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	srv := httptest.NewServer(Handler())
	defer srv.Close()
	for name, c := range map[string]struct {
		body   string
		status int
		want   []string
	}{
		"plain":           {`{"messages":[{"role":"user","content":"hi there"}]}`, 200, []string{"You said: hi there", `"finish_reason":"stop"`}},
		"parts":           {`{"messages":[{"role":"user","content":[{"type":"text","text":"in parts"}]}]}`, 200, []string{"You said: in parts"}},
		"stamped":         {`{"messages":[{"role":"user","content":"[Mon 2026-11-23 13:00 UTC] hello"}]}`, 200, []string{"You said: hello"}},
		"wrapped":         {`{"messages":[{"role":"user","content":"[Mon] Conversation info: x\n\nhello there\n\nRuntime: agent=main | y"}]}`, 200, []string{"You said: hello there\""}},
		"streamed":        {`{"stream":true,"messages":[{"role":"user","content":"hi"}]}`, 200, []string{"data: ", `"content":"hi"`, "[DONE]"}},
		"slow":            {`{"stream":true,"messages":[{"role":"user","content":"SLOW:3:1"}]}`, 200, []string{`"w2 "`, "[DONE]"}},
		"context skipped": {`{"messages":[{"role":"user","content":"mine"},{"role":"user","content":"OPENCLAW_INTERNAL_CONTEXT x"}]}`, 200, []string{"You said: mine"}},
		"bad":             {`{`, 400, []string{"not valid JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := http.Post(srv.URL+"/v1/chat/completions", "application/json", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.status {
				t.Fatalf("%s %v: %s", resp.Status, err, b)
			}
			for _, w := range c.want {
				if !strings.Contains(string(b), w) {
					t.Errorf("answer lacks %q: %s", w, b)
				}
			}
		})
	}
}
