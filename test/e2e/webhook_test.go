package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/webhook"
)

// A router that asks everybody for a token lets a signed webhook through to the
// gateway's own hooks; it wakes a stopped sandbox. What is not signed for that very
// user wakes nobody, and the gateway takes a webhook for nobody's request.
func TestWebhookWakes(t *testing.T) {
	s := needStack(t)
	const user = "wendy"
	r := router{addr: s.tokens[tokenUsers[0]].addr, domain: "localhost"} // without a token
	const turn = `{"message":"hello by webhook","name":"e2e","deliver":false,"waitForCompletion":true}`
	post := func(path, body, signer, token string) (int, string) {
		t.Helper()
		h := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}}
		if signer != "" {
			h.Set(webhook.SignedHeader, webhook.Sign([]byte(s.webhooks.Secret("hooks", "wendy")), []byte(body), time.Now()))
			if signer != user {
				h.Set(webhook.SignedHeader, webhook.Sign([]byte(signer), []byte(body), time.Now()))
			}
		}
		resp := s.do(t, r, http.MethodPost, user, path, body, h)
		return resp.StatusCode, string(readAll(t, resp))
	}
	for name, c := range map[string][2]string{"unsigned": {"/hooks/agent", ""}, "another's": {"/hooks/agent", s.webhooks.Secret("hooks", "mallory")}, "another path": {"/v1/models", user}} {
		if status, body := post(c[0], turn, c[1], hooksToken); status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s, want 401", name, status, body)
		}
	}
	if started := s.allChildren(t, user); len(started) != 0 {
		t.Fatalf("what was refused started %v", started)
	}
	var status int
	var body string
	// A sender tries again after a 503, which comes when the hold is over.
	eventually(t, startLimit, "answer to the webhook", func() bool {
		status, body = post("/hooks/agent", turn, user, hooksToken)
		return status != http.StatusServiceUnavailable
	})
	var out struct {
		OK         bool
		RunID      string
		Completion struct{ Status string }
	}
	if err := json.Unmarshal([]byte(body), &out); err != nil || status != http.StatusOK || !out.OK || out.RunID == "" || out.Completion.Status != "ok" {
		t.Errorf("the gateway's hook: %d %s (%v), want a turn that ended well", status, body, err)
	}
	if live := s.liveChildren(t, user); len(live) != 1 {
		t.Errorf("live children: %v, want one", live)
	}
	// Signed well, but without the gateway's token: were the gateway told a user, it might do.
	if status, body := post("/hooks/agent", turn, user, "wrong"); status != http.StatusUnauthorized || strings.Contains(body, "problem") {
		t.Errorf("with a wrong token: %d %s, want the gateway's own 401", status, body)
	}
}
