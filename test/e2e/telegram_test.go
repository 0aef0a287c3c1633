package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/demomodel"
	"openclaw-sandbox/internal/devcluster"
)

// botAPI stands for Telegram: it takes what a gateway's bot says.
type botAPI struct {
	hooks    chan map[string]any // what setWebhook was called with
	messages chan map[string]any // what sendMessage was
}

func (b botAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var in map[string]any
	json.Unmarshal(text, &in) // a GET has none
	var result any = true
	switch method := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]; method {
	case "getMe":
		result = map[string]any{"id": 42, "is_bot": true, "first_name": "Bot", "username": "demo_bot"}
	case "setWebhook":
		b.hooks <- in
	case "sendMessage":
		b.messages <- in
		result = map[string]any{"message_id": 7, "date": 1, "chat": map[string]any{"id": 1111, "type": "private"}, "text": "x"}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"ok": true, "result": result})
}

// Where sandboxes are reached over mapped ports, Nomad says in Consul which one is
// a webhook's.
func TestMappedWebhookPort(t *testing.T) {
	s := needStack(t)
	const user, job = "mona", "openclaw-mapped"
	if err := s.RegisterSandboxes(t.Context(), job, func(vars map[string]any) { vars["address_mode"] = "host" }); err != nil {
		t.Fatal(err)
	}
	dispatched, _, err := s.Nomad.Client().Jobs().Dispatch(job, map[string]string{"user": user}, nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, id := range []string{dispatched.DispatchedJobID, job} {
			if _, _, err := s.Nomad.Client().Jobs().Deregister(id, false, nil); err != nil {
				t.Errorf("stop %s: %v", id, err)
			}
		}
	})
	eventually(t, startLimit, "registration of "+user, func() bool {
		entries, _, err := s.Consul.Client().Health().Service("openclaw-gateway", "", false, nil) // its check fails: this node is no trusted proxy then
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Service.Meta["user"] != user {
				continue
			}
			a, _, err := s.Nomad.Client().Allocations().Info(e.Service.Meta["generation"], nil)
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			for _, p := range a.AllocatedResources.Shared.Ports {
				if p.Label == "telegram" {
					want = fmt.Sprintf("8787=%d", p.Value)
				}
			}
			if got := e.Service.Meta["ports"]; want == "" || got != want {
				t.Fatalf("Consul says %q, Nomad %q", got, want)
			}
			return true
		}
		return false
	})
}

// A user sets up Telegram as docs/webhooks.md says, with OpenClaw's own channel. A
// message then wakes the stopped sandbox, through a router that asks everybody else
// for a token, and is answered. Only Telegram's server is a stand-in.
func TestTelegram(t *testing.T) {
	s := needStack(t)
	const user = "tessa"
	r := router{addr: s.tokens[tokenUsers[0]].addr, domain: "localhost"} // without a token
	api := botAPI{hooks: make(chan map[string]any, 100), messages: make(chan map[string]any, 100)}
	l, err := demomodel.Listen(t.Context(), s.telegramAddr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: api, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-served })

	s.dispatch(t, user)
	s.waitPassing(t, user)
	secret := s.webhooks.Secret("telegram", user)
	channel, err := json.Marshal(map[string]any{
		"enabled": true, "botToken": "42:" + strings.Repeat("A", 35), "dmPolicy": "open", "allowFrom": []string{"*"},
		"webhookUrl": "https://tessa.localhost/telegram-webhook", "webhookSecret": secret, "webhookPath": "/telegram-webhook", "webhookHost": "0.0.0.0",
		"apiRoot": "http://" + s.telegramAddr, "network": map[string]any{"dangerouslyAllowPrivateNetwork": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	node, err := devcluster.Tool("node")
	if err != nil {
		t.Fatal(err)
	}
	s.execInside(t, user, node, "-e", fmt.Sprintf(`const fs=require("fs"),f="/state/openclaw/openclaw.json",c=JSON.parse(fs.readFileSync(f));c.channels={telegram:%s};fs.writeFileSync(f,JSON.stringify(c))`, channel))
	s.stop(t, user)
	for len(api.hooks) > 0 {
		<-api.hooks
	}

	update := fmt.Sprintf(`{"update_id":10000,"message":{"date":%d,"chat":{"last_name":"L","id":1111,"type":"private","first_name":"F"},"message_id":1365,"from":{"last_name":"L","id":1111,"is_bot":false,"first_name":"F"},"text":"hello from Telegram"}}`, time.Now().Unix())
	send := func(token string) *http.Response {
		return s.do(t, r, http.MethodPost, user, "/telegram-webhook", update, http.Header{"Content-Type": {"application/json"}, "X-Telegram-Bot-Api-Secret-Token": {token}})
	}
	before := len(s.allChildren(t, user))
	resp := send(s.webhooks.Secret("telegram", "mallory"))
	if body := readAll(t, resp); resp.StatusCode != http.StatusUnauthorized || len(s.allChildren(t, user)) != before {
		t.Errorf("with another user's secret: %s %s", resp.Status, body)
	}
	eventually(t, startLimit, "answer to Telegram", func() bool {
		resp = send(secret)
		body := readAll(t, resp)
		t.Logf("Telegram is answered %s %s", resp.Status, body)
		return resp.StatusCode != http.StatusServiceUnavailable // Telegram tries again
	})
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-OpenClaw-Delivery-Accepted") != "durable" {
		t.Errorf("Telegram is answered %s %v, want that the channel has the message", resp.Status, resp.Header)
	}
	select {
	case m := <-api.messages:
		if text := fmt.Sprint(m["text"]); !strings.Contains(text, "You said: hello from Telegram") {
			t.Errorf("the bot says %q", text)
		}
	case <-time.After(time.Minute):
		t.Error("the bot does not answer")
	}
	select {
	case h := <-api.hooks:
		if h["secret_token"] != secret || h["url"] != "https://tessa.localhost/telegram-webhook" {
			t.Errorf("the gateway registers %v", h)
		}
	case <-time.After(time.Minute):
		t.Error("the gateway does not register its webhook")
	}
}
