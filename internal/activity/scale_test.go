package activity

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/sandbox"
)

// ledger is a Consul that enforces its limits of transactions.
type ledger struct {
	mu   sync.Mutex // guards what follows
	keys map[string][]byte
	txns int
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	switch {
	case r.URL.Path == "/v1/session/create":
		fmt.Fprint(w, `{"ID":"s1"}`)
	case strings.HasPrefix(r.URL.Path, "/v1/session/renew/"):
		fmt.Fprint(w, `[{"ID":"s1"}]`)
	case r.URL.Path == "/v1/txn" && len(body) > 512<<10:
		http.Error(w, fmt.Sprintf("Request body(%d bytes) too large, max size: 524288 bytes", len(body)), http.StatusRequestEntityTooLarge)
	case r.URL.Path == "/v1/txn":
		var ops []struct {
			KV struct {
				Key   string
				Value []byte
			}
		}
		if err := json.Unmarshal(body, &ops); err != nil || len(ops) > 64 {
			http.Error(w, fmt.Sprintf("%d operations: %v", len(ops), err), http.StatusBadRequest)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.txns++
		for _, op := range ops {
			l.keys[op.KV.Key] = op.KV.Value
		}
		fmt.Fprint(w, `{"Results":[]}`)
	default:
		http.NotFound(w, r)
	}
}

// All users of a day on one router fit, however many; and a period in which one of them
// does something writes that user's bucket only.
func TestManyUsers(t *testing.T) {
	for _, users := range []int{10_000, 100_000} {
		t.Run(fmt.Sprint(users), func(t *testing.T) {
			l := &ledger{keys: map[string][]byte{}}
			s := httptest.NewServer(l)
			defer s.Close()
			client, err := consul.NewClient(&consul.Config{Address: strings.TrimPrefix(s.URL, "http://")})
			if err != nil {
				t.Fatal(err)
			}
			tracker := NewTracker()
			user := func(n int) sandbox.User { return sandbox.User(fmt.Sprintf("somebody-with-a-long-name-%06d", n)) }
			for n := range users {
				tracker.Note(user(n), Page)
			}
			c := DefaultConfig()
			c.Name = "me"
			b := NewBoard(c, client, tracker, slog.New(slog.DiscardHandler))
			if err := b.publish(t.Context()); err != nil {
				t.Fatal(err)
			}
			seen := 0
			for key, value := range l.keys {
				var w wire
				if key == c.Prefix+beats+c.Name {
					continue
				}
				if err := json.Unmarshal(value, &w); err != nil {
					t.Fatalf("%s: %v", key, err)
				}
				seen += len(w.Users)
			}
			if seen != users || l.keys[c.Prefix+beats+c.Name] == nil {
				t.Errorf("%d users and the sign of life %q are written, want %d and one", seen, l.keys[c.Prefix+beats+c.Name], users)
			}
			before := l.txns
			tracker.Note(user(0), Message)
			l.keys = map[string][]byte{}
			if err := b.publish(t.Context()); err != nil {
				t.Fatal(err)
			}
			if l.txns != before+1 || len(l.keys) != 2 {
				t.Errorf("one change: %d transactions with %d keys, want 1 with 2", l.txns-before, len(l.keys))
			}
		})
	}
}
