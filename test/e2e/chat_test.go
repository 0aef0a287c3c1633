package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// (a) Without any router: a dispatch by hand becomes a passing instance in
// Consul, and the router then finds it and carries a chat.
func TestDispatchByHandThenChat(t *testing.T) {
	s := needStack(t)
	child := s.dispatch(t, "hand")
	inst := s.waitPassing(t, "hand")
	if got := inst.Service.Meta["user"]; got != "hand" {
		t.Errorf("Consul meta user = %q, want hand", got)
	}
	if inst.Service.Meta["generation"] == "" || inst.Service.Meta["node"] == "" {
		t.Errorf("Consul meta lacks generation or node: %v", inst.Service.Meta)
	}
	reply := dial(t, s.dev, "hand").chat("hello by hand")
	if !strings.Contains(reply, "hello by hand") {
		t.Errorf("reply = %q, want it to quote the message", reply)
	}
	if live := s.liveChildren(t, "hand"); len(live) != 1 || live[0] != child {
		t.Errorf("live children = %v, want only %s", live, child)
	}
}

// (c) POST /api/chat wakes the sandbox, answers as JSON, and streams.
func TestChatEndpoint(t *testing.T) {
	s := needStack(t)
	s.endAfter(t, "carol")

	t.Run("plain, cold", func(t *testing.T) {
		resp := s.post(t, s.dev, "carol", "/api/chat", `{"message":"plain words"}`, "application/json")
		body := readAll(t, resp)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %s: %s", resp.Status, body)
		}
		var out struct {
			Reply string `json:"reply"`
		}
		if err := json.Unmarshal(body, &out); err != nil || !strings.Contains(out.Reply, "plain words") {
			t.Errorf("answer = %s (%v), want a reply that quotes the message", body, err)
		}
	})

	t.Run("streamed", func(t *testing.T) {
		resp := s.post(t, s.dev, "carol", "/api/chat", `{"message":"SLOW:8:50"}`, "text/event-stream")
		defer resp.Body.Close()
		if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/event-stream") {
			t.Fatalf("content type %q, status %s", ct, resp.Status)
		}
		var names []string
		var arrivals []time.Time
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				names = append(names, name)
				arrivals = append(arrivals, time.Now())
			}
		}
		if len(names) < 3 || names[len(names)-1] != "final" {
			t.Fatalf("events = %v, want several deltas and a final", names)
		}
		if spread := arrivals[len(arrivals)-1].Sub(arrivals[0]); spread < 100*time.Millisecond {
			t.Errorf("all events came within %s: the answer was buffered", spread)
		}
	})

	t.Run("several at once", func(t *testing.T) {
		words := []string{"red apples", "green pears", "blue plums"}
		replies := make(chan string, len(words))
		for _, w := range words {
			go func() {
				resp := s.post(t, s.dev, "carol", "/api/chat", `{"message":"`+w+`"}`, "application/json")
				replies <- w + " " + string(readAll(t, resp))
			}()
		}
		for range words {
			r := <-replies
			if w, _, _ := strings.Cut(r, " {"); strings.Count(r, w) != 2 {
				t.Errorf("the message and its answer: %s", r)
			}
		}
	})

	t.Run("status never wakes", func(t *testing.T) {
		resp := s.get(t, s.dev, "nobody-there", "/api/status", nil)
		if body := readAll(t, resp); resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "stopped") {
			t.Errorf("status = %s %s, want 200 and stopped", resp.Status, body)
		}
		if live := s.liveChildren(t, "nobody-there"); len(live) != 0 {
			t.Errorf("asking for the status started %v", live)
		}
	})
}

// (b) A person opens a URL: progress, then the Control UI, connected without
// token or pairing, and a chat. The Consul UI shows what runs.
func TestBrowser(t *testing.T) {
	s := needStack(t)
	b := newBrowser(t)

	s.endAfter(t, "dora")
	b.open(s.dev.url("dora") + "/chat?from=deep-link")
	b.waitText(30*time.Second, "dora")
	b.shot("1-progress")
	b.waitComposer(startLimit)
	b.shot("2-control-ui")
	b.say("good morning from the browser")
	b.waitText(60*time.Second, "You said: good morning from the browser")
	b.shot("3-chat")
	for _, bad := range []string{"pairing required", "Approve this browser", "token mismatch", "Disconnected"} {
		if strings.Contains(b.text(), bad) {
			t.Errorf("the Control UI shows %q", bad)
		}
	}

	b.open(s.consulURL + "/ui/")
	b.waitText(60*time.Second, "openclaw-gateway", "sandbox-router")
	b.shot("4-consul-services")
	b.open(s.consulURL + "/ui/dc1/services/openclaw-gateway/instances")
	b.waitText(60*time.Second, "All service checks passing")
	b.shot("5-consul-gateway")
	inst := s.waitPassing(t, "dora")
	b.open(s.consulURL + "/ui/dc1/services/openclaw-gateway/instances/" + inst.Node.Node + "/" + inst.Service.ID)
	b.waitText(60*time.Second, "Tags & Meta")
	b.click("Tags & Meta")
	b.waitText(60*time.Second, "generation", "dora")
	b.shot("6-consul-meta")
}

// The Control UI by path, on a host without wildcard DNS.
func TestBrowserByPath(t *testing.T) {
	s := needStack(t)
	s.endAfter(t, "oscar")
	b := newBrowser(t)
	b.open("http://localhost:" + s.dev.port() + "/u/oscar/chat")
	b.waitComposer(startLimit)
	b.say("hello by path")
	b.waitText(60*time.Second, "You said: hello by path")
	b.shot("7-by-path")
}

// By path, on a host without wildcard DNS, for programs: the API, a WebSocket, a chat.
func TestByPath(t *testing.T) {
	s := needStack(t)
	resp := s.postTo(t, s.dev, "localhost:"+s.dev.port(), "olga", "/u/olga/api/chat", `{"message":"hello by path"}`)
	if body := readAll(t, resp); resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "hello by path") {
		t.Fatalf("chat by path: %s %s", resp.Status, body)
	}
	get, err := http.Get("http://localhost:" + s.dev.port() + "/u/olga/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	if body := readAll(t, get); get.StatusCode != http.StatusOK || !strings.Contains(string(body), "openclaw") {
		t.Errorf("API by path: %s %s", get.Status, body)
	}
}

func readAll(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return b
}
