package router

import (
	"net/http"
	"testing"
)

// An offer of another protocol is ignored, and the request served; the gateway never sees it.
func TestForeignUpgrade(t *testing.T) {
	a := newArena(t)
	for name, header := range map[string][]string{
		"curl --http2":  {"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"},
		"TLS":           {"Connection: upgrade", "Upgrade: TLS/1.2"},
		"two protocols": {"Connection: Upgrade", "Upgrade: h2c, websocket"},
		"not named":     {"Upgrade: h2c"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := a.ask("GET", "alice.claw.test", "/x", "", append(header, "Authorization: Bearer t-alice", "Test-From: 203.0.113.8:9", "Attempt: "+name)...)
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s %.200s, want 200", resp.Status, body)
			}
			got := a.gateway.Header()
			if got.Get("Attempt") != name || got.Get("Upgrade") != "" || got.Get("Http2-Settings") != "" || got.Get("Connection") == "Upgrade" {
				t.Errorf("the gateway got %v", got)
			}
		})
	}
}
