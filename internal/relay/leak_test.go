package relay

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"
)

// Descriptors and goroutines go with the pairs.
func TestNothingIsLeft(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		warm, _ := tcp(t) // Go's poller has descriptors of its own
		warm.Close()
		fds, goroutines := descriptors(t), runtime.NumGoroutine()
		r := New(o, slog.New(slog.DiscardHandler))
		for i := range 1000 {
			w := join(t, r, nil)
			w.client.Write([]byte("x"))
			expect(t, w.upstream, []byte("x"))
			switch i % 4 {
			case 0:
				w.client.Close()
				expectEnd(t, w.upstream)
			case 1:
				w.Close()
			case 2:
				w.client.SetLinger(0)
				w.client.Close()
			case 3: // Relay.Close ends it
			}
			if i%4 != 3 {
				w.upstream.Close()
				w.end(t)
				w.client.Close()
			} else {
				defer func() {
					if err := w.end(t); !errors.Is(err, ErrClosed) {
						t.Errorf("ended with %v", err)
					}
				}()
				defer w.client.Close()
				defer w.upstream.Close()
			}
		}
		if n := r.Len(); n != 250 {
			t.Errorf("Len() = %d, want 250", n)
		}
		r.Close()
		if n := r.Len(); n != 0 {
			t.Errorf("Len() = %d after Close", n)
		}
		for until := time.Now().Add(patience); runtime.NumGoroutine() > goroutines && time.Now().Before(until); {
			runtime.Gosched() // a goroutine that is done may still be counted
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			t.Errorf("%d goroutines, %d before", n, goroutines)
		}
		if n := descriptors(t) - 2*250; n > fds {
			t.Errorf("%d descriptors besides the test's own, %d before", n, fds)
		}
	})
}

func descriptors(t testing.TB) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system does not list descriptors")
	}
	return len(all)
}

func TestStartAfterClose(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		r := New(o, slog.New(slog.DiscardHandler))
		r.Close()
		w := join(t, r, nil)
		if err := w.end(t); !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v", err)
		}
		expectEnd(t, w.client)
		w.Close()
		w.CloseWith(1012, "")
		r.Close()
	})
}
