package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/devcluster"
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
	telegram(t, s, r, user)
}

// telegram sends a webhook to another port of the sandbox, where OpenClaw's
// Telegram channel listens. That one needs Telegram, so that a few lines stand for it.
func telegram(t *testing.T, s *stack, r router, user string) {
	type answer struct {
		status int
		body   string
	}
	secret := s.webhooks.Secret("telegram", "wendy")
	got := make(chan answer, 1)
	go func() { // it is held until somebody listens
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.addr+"/telegram-webhook", strings.NewReader(`{"update_id":1}`))
		if err != nil {
			got <- answer{body: err.Error()}
			return
		}
		req.Host = r.host(user)
		req.Header.Set("X-Telegram-Bot-Api-Secret-Token", secret)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			got <- answer{body: err.Error()}
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			got <- answer{body: err.Error()}
			return
		}
		got <- answer{resp.StatusCode, string(text)}
	}()
	node, err := devcluster.Tool("node")
	if err != nil {
		t.Fatal(err)
	}
	s.execInside(t, user, node, "-e", `require("http").createServer((q,a)=>{let b="";q.on("data",d=>b+=d);q.on("end",()=>a.end(JSON.stringify({url:q.url,headers:q.headers,body:b}),()=>setTimeout(()=>process.exit(),200)))}).listen(8787,"0.0.0.0")`)
	a := <-got
	var seen struct {
		URL, Body string
		Headers   map[string]string
	}
	if err := json.Unmarshal([]byte(a.body), &seen); err != nil || a.status != http.StatusOK {
		t.Fatalf("Telegram's webhook: %d %s (%v)", a.status, a.body, err)
	}
	if seen.URL != "/telegram-webhook" || seen.Body != `{"update_id":1}` || seen.Headers["x-telegram-bot-api-secret-token"] != secret || seen.Headers["x-forwarded-user"] != "" {
		t.Errorf("the channel saw %+v", seen)
	}
	if s.passing(user) == nil {
		t.Error("a port that was closed for a while cost the gateway its route")
	}
}
