package router

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"openclaw-sandbox/internal/chat/chattest"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/webhook"
)

// hooked is a stack whose router asks for a login, and has webhooks.
type hooked struct {
	*stack
	secrets *webhook.Derived
	mu      sync.Mutex // guards results
	results []webhook.Result
}

const perMinute = 4

const slackSecret = "8f742231b10e8888abcd99yyyzzz85a5"

func startHooked(t *testing.T, hold time.Duration, port int) *hooked {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"master": base64.StdEncoding.EncodeToString(make([]byte, 32)), "alice": slackSecret} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secrets, err := webhook.ReadMasters(filepath.Join(dir, "master"))
	if err != nil {
		t.Fatal(err)
	}
	hooks := []webhook.Hook{
		{Name: "telegram", Path: "/telegram-webhook", Signature: webhook.Telegram, Secrets: secrets, Port: port},
		{Name: "slack", Path: "/slack/events", Signature: webhook.Slack, Secrets: webhook.Folder(dir)},
		{Name: "hooks", Path: "/hooks/", Signature: webhook.Signed, Secrets: secrets},
	}
	for i := range hooks {
		hooks[i].Methods, hooks[i].MaxBody, hooks[i].PerMinute, hooks[i].Hold = []string{"POST"}, 10_000, perMinute, hold
		if err := hooks[i].Check(); err != nil {
			t.Fatal(err)
		}
	}
	h := &hooked{secrets: secrets}
	who := identity.Any{tokens(t), identity.Header{Name: "X-Auth-Request-Email"}}
	h.stack = startWith(t, who, 20*time.Second, func(rt *Router) {
		rt.UseWebhooks(webhook.New(hooks), func(r webhook.Result) { h.mu.Lock(); defer h.mu.Unlock(); h.results = append(h.results, r) })
	})
	return h
}

// fromTelegram is an update as Telegram's server sends it.
func fromTelegram(secret string) (body string, header []string) {
	return `{"update_id":10000,"message":{"date":1441645532,"chat":{"last_name":"Lastname","id":1111111,"type":"private","first_name":"Firstname"},` +
			`"message_id":1365,"from":{"last_name":"Lastname","id":1111111,"is_bot":false,"first_name":"Firstname"},"text":"/start"}}`,
		[]string{"Content-Type: application/json", "Connection: keep-alive", "Accept-Encoding: gzip, deflate", "X-Telegram-Bot-Api-Secret-Token: " + secret}
}

// fromSlack is an event as Slack's documentation shows it.
func fromSlack(secret string, now time.Time) (body string, header []string) {
	body = `{"token":"z26uFbvR1xHJEdHE1OQiO6t8","team_id":"T061EG9RZ","api_app_id":"A0FFV41KK","event":{"type":"message","user":"U061F1EUR","ts":"1464196127.000002",` +
		`"channel":"D024BE91L","text":"hello"},"type":"event_callback","event_id":"Ev9UQ52YNA","event_time":1234567890}`
	at := fmt.Sprint(now.Unix())
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte("v0:" + at + ":" + body))
	return body, []string{"Content-Type: application/json", "User-Agent: Slackbot 1.0 (+https://api.slack.com/robots)", "Accept: */*", "Accept-Encoding: gzip,deflate",
		"X-Slack-Signature: v0=" + hex.EncodeToString(m.Sum(nil)), "X-Slack-Request-Timestamp: " + at, "X-Slack-Retry-Num: 1", "X-Slack-Retry-Reason: http_timeout"}
}

// A channel's request wakes its user's sandbox, is held, and reaches the gateway as
// it was sent, as nobody's.
func TestWebhookWakesAndPasses(t *testing.T) {
	for name, of := range map[string]func(h *hooked) (path, body string, header []string){
		"telegram": func(h *hooked) (string, string, []string) {
			body, header := fromTelegram(h.secrets.Secret("telegram", "alice"))
			return "/telegram-webhook", body, header
		},
		"slack": func(*hooked) (string, string, []string) {
			body, header := fromSlack(slackSecret, time.Now())
			return "/slack/events", body, header
		},
		"signed": func(h *hooked) (string, string, []string) {
			const body = `{"message":"hello"}`
			return "/hooks/agent?x=1", body, []string{"Authorization: Bearer the-gateways-own", webhook.SignedHeader + ": " + webhook.Sign([]byte(h.secrets.Secret("hooks", "alice")), []byte(body), time.Now())}
		},
	} {
		for where, at := range map[string][2]string{"by host": {"alice.claw.test", ""}, "by path": {"claw.test", "/u/alice"}} {
			t.Run(name+" "+where, func(t *testing.T) {
				h := startHooked(t, 20*time.Second, 0)
				g := chattest.New(t, "alice")
				path, body, header := of(h)
				forged := []string{"X-Forwarded-User: alice", "X-Auth-Request-Email: alice@example.com", "Cookie: a=b", "X-Requested-With: x"}
				if name != "signed" { // which has the gateway's own token there
					forged = append(forged, "Authorization: Bearer t-alice")
				}
				type answer struct {
					status int
					body   string
				}
				got := make(chan answer, 1)
				go func() {
					resp, text := h.ask("POST", at[0], at[1]+path, body, append(forged, header...)...)
					got <- answer{resp.StatusCode, text}
				}()
				h.woken(t, "alice")
				h.land("alice", g)
				if a := <-got; a.status != 200 || !strings.Contains(a.body, "Control UI of alice</title>"+path) {
					t.Errorf("%d %s, want the gateway's answer", a.status, a.body)
				}
				saw := g.Header()
				for _, line := range header {
					name, value, _ := strings.Cut(line, ": ")
					if hop := name == "Connection" || name == webhook.SignedHeader; hop == (saw.Get(name) == value) {
						t.Errorf("the gateway saw %s: %q", name, saw.Get(name))
					}
				}
				for _, line := range forged {
					if name, value, _ := strings.Cut(line, ": "); saw.Get(name) == value && name != "X-Requested-With" {
						t.Errorf("the gateway saw %s: %s", name, saw.Get(name))
					}
				}
				if saw.Get("X-Forwarded-For") == "" || saw.Get("X-Forwarded-Proto") == "" || saw.Get("X-Forwarded-Host") != at[0] {
					t.Errorf("the gateway can not attribute the request: %v", saw)
				}
				if g.Body() != body || saw.Get("Content-Length") != fmt.Sprint(len(body)) {
					t.Errorf("the gateway saw the body %q of %s", g.Body(), saw.Get("Content-Length"))
				}
				h.stack.mu.Lock()
				defer h.stack.mu.Unlock()
				if acts := strings.Join(h.acts, ", "); acts != "alice call" || h.wakes != 1 {
					t.Errorf("told %q after %d starts, want one call and one start", acts, h.wakes)
				}
			})
		}
	}
}

// What does not prove itself wakes nobody, and no other door is open.
func TestWebhookRefusals(t *testing.T) {
	h := startHooked(t, 20*time.Second, 0)
	body, bob := fromTelegram(h.secrets.Secret("telegram", "bob"))
	_, alice := fromTelegram(h.secrets.Secret("telegram", "alice"))
	slackBody, stale := fromSlack(slackSecret, time.Now().Add(-webhook.Tolerance-time.Minute))
	own := append([]string{"Authorization: Bearer t-alice"}, bob...)
	for name, c := range map[string]struct {
		method, host, path, body string
		header                   []string
		want                     int
	}{
		"nothing":                       {"POST", "alice.claw.test", "/telegram-webhook", body, nil, 401},
		"another user's":                {"POST", "alice.claw.test", "/telegram-webhook", body, bob, 401},
		"another user's, by path":       {"POST", "claw.test", "/u/alice/telegram-webhook", body, bob, 401},
		"another hook's":                {"POST", "alice.claw.test", "/hooks/agent", body, alice, 401},
		"a login in place of it":        {"POST", "alice.claw.test", "/telegram-webhook", body, own, 401},
		"stale":                         {"POST", "alice.claw.test", "/slack/events", slackBody, stale, 401},
		"too large":                     {"POST", "alice.claw.test", "/telegram-webhook", strings.Repeat("x", 10_001), alice, 413},
		"nobody's":                      {"POST", "claw.test", "/telegram-webhook", body, alice, 401},
		"a GET needs a login":           {"GET", "alice.claw.test", "/telegram-webhook", "", alice, 401},
		"another path needs a login":    {"POST", "alice.claw.test", "/telegram-webhook/x", body, alice, 401},
		"the API needs a login":         {"POST", "alice.claw.test", "/api/chat", `{"message":"x"}`, append([]string{isJSON}, alice...), 401},
		"out of the prefix":             {"POST", "alice.claw.test", "/hooks/%2e%2e/v1/models", body, alice, 401},
		"a page of another origin":      {"POST", "alice.claw.test", "/telegram-webhook", body, append([]string{"Sec-Fetch-Site: cross-site"}, alice...), 403},
		"no valid user":                 {"POST", "A_.claw.test", "/telegram-webhook", body, alice, 400},
		"another host":                  {"POST", "evil.test", "/telegram-webhook", body, alice, 421},
		"the router's own, with a hook": {"POST", "alice.claw.test", "/_sandbox/start", "", alice, 401},
	} {
		resp, text := h.ask(c.method, c.host, c.path, c.body, c.header...)
		if resp.StatusCode != c.want || strings.Contains(text, "secret") || c.want == 401 && resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %s %s, want %d", name, resp.Status, text, c.want)
		}
	}
	if h.wakes != 0 {
		t.Errorf("%d starts by what was refused", h.wakes)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := map[webhook.Result]int{}
	for _, r := range h.results {
		counts[r]++
	}
	if counts[webhook.Refused] != 6 || counts[webhook.TooLarge] != 1 || len(h.results) != 7 {
		t.Errorf("counted %v, want 6 refused and 1 too large", counts)
	}
}

// A sender that is not patient enough is told to come again, and the start goes on.
func TestWebhookIsHeldForAWhile(t *testing.T) {
	h := startHooked(t, time.Millisecond, 0)
	body, header := fromTelegram(h.secrets.Secret("telegram", "alice"))
	resp, text := h.ask("POST", "alice.claw.test", "/telegram-webhook", body, header...)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "3" || !strings.Contains(text, "Still starting") || h.wakes != 1 {
		t.Errorf("%s, Retry-After %q after %d starts: %s", resp.Status, resp.Header.Get("Retry-After"), h.wakes, text)
	}
	h.land("alice", chattest.New(t, "alice"))
	for _, want := range []int{200, 200, 200, 429} {
		if resp, text := h.ask("POST", "alice.claw.test", "/telegram-webhook", body, header...); resp.StatusCode != want || (resp.Header.Get("Retry-After") != "") != (want == 429) {
			t.Errorf("%s, Retry-After %q: %s; want %d", resp.Status, resp.Header.Get("Retry-After"), text, want)
		}
	}
}

// A channel that listens on a port of its own is waited for; that it does not
// listen costs the gateway neither its route nor its connections.
func TestWebhookPort(t *testing.T) {
	channel, g := chattest.New(t, "channel"), chattest.New(t, "alice")
	var port int
	if _, err := fmt.Sscanf(channel.Addr(), "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	channel.Close()
	h := startHooked(t, 300*time.Millisecond, 8787)
	h.ports = "1=2"
	h.land("alice", g)
	body, header := fromTelegram(h.secrets.Secret("telegram", "alice"))
	for _, what := range []string{"a port that the job does not open", "a closed port"} {
		if resp, text := h.ask("POST", "alice.claw.test", "/telegram-webhook", body, header...); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(text, "nothing in it takes this webhook") {
			t.Errorf("%s: %s %s", what, resp.Status, text)
		}
		h.ports = fmt.Sprintf("1=2,8787=%d", port)
		h.land("alice", g)
	}
	if _, ok := h.Lookup("alice"); !ok || h.evictions+h.wakes != 0 {
		t.Errorf("the gateway lost its route: %d evictions, %d starts", h.evictions, h.wakes)
	}
	again(t, channel)
	for range 2 {
		resp, text := h.ask("POST", "alice.claw.test", "/telegram-webhook", body, header...)
		if resp.StatusCode != http.StatusOK || !strings.Contains(text, "Control UI of channel") || channel.Body() != body {
			t.Errorf("%s %s: the channel saw %q", resp.Status, text, channel.Body())
		}
		if resp, text := h.ask("GET", "alice.claw.test", "/x", "", "Authorization: Bearer t-alice"); resp.StatusCode != http.StatusOK || !strings.Contains(text, "Control UI of alice") {
			t.Errorf("the gateway itself: %s %s", resp.Status, text)
		}
	}
}
