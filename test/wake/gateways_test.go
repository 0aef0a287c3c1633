package wake

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// gateways is one process that answers for every gateway: it listens on all ports
// that Nomad may give, and says on which of them it was asked, and for whom.
type gateways struct {
	first, last int
}

// said is what a gateway answers.
type said struct {
	User string `json:"user"`
	Port int    `json:"port"`
}

// startGateways listens on n ports in a row, outside those that the kernel gives
// to outgoing connections.
func startGateways(t *testing.T, n int) *gateways {
	t.Helper()
	for first := 20000; first+n < 32000; first += 500 {
		listeners, err := listen(first, n)
		if err != nil {
			continue
		}
		for i, l := range listeners {
			srv := httptest.NewUnstartedServer(answer(first + i))
			srv.Listener.Close()
			srv.Listener = l
			srv.Start()
			t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
		}
		return &gateways{first: first, last: first + n - 1}
	}
	t.Fatalf("no %d free ports in a row", n)
	return nil
}

func listen(first, n int) (all []net.Listener, err error) {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func answer(port int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(said{User: r.Header.Get("X-Forwarded-User"), Port: port})
	}
}
