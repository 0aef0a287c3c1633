package wake

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"openclaw-sandbox/test/rig"
)

// said is what a gateway answers.
type said struct {
	User string `json:"user"`
	Port int    `json:"port"`
}

// startGateways has this process answer for every gateway: it listens on all n ports
// that Nomad may give, and says on which of them it was asked, and for whom. It
// returns the lowest.
func startGateways(t *testing.T, n int) int {
	t.Helper()
	listeners, first, err := rig.Listen(n)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range listeners {
		srv := httptest.NewUnstartedServer(answer(first + i))
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	}
	return first
}

func answer(port int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(said{User: r.Header.Get("X-Forwarded-User"), Port: port})
	}
}
