package relay

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
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

// Pairs that are busy at the same time do not meet each other's bytes, which pass
// through the same buffers and the same pipe.
func TestManyPairs(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		r := New(o, slog.New(slog.DiscardHandler))
		t.Cleanup(r.Close)
		var wg sync.WaitGroup
		base := frames(1 << 20)
		for i := range 12 {
			w := join(t, r, nil)
			for way, ends := range [][2]*net.TCPConn{{w.client, w.upstream}, {w.upstream, w.client}} {
				all := bytes.Clone(base)
				for at := range all[len(all)-1<<10:] { // the last frame is large: this is payload
					all[len(all)-1<<10+at] = byte(2*i + way)
				}
				wg.Go(func() { ends[0].Write(all); ends[0].CloseWrite() })
				wg.Go(func() {
					if got, err := io.ReadAll(ends[1]); err != nil || !bytes.Equal(got, all) {
						t.Errorf("pair %d: %d of %d bytes came, or others (%v)", i, len(got), len(all), err)
					}
				})
			}
		}
		wg.Wait()
	})
}

// A connection that is broken already is reported like one that breaks later.
func TestStartWithADeadConnection(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		for _, dead := range []Side{Client, Upstream} {
			w := connect(t, o, func(p *Pair) { []net.Conn{p.Client, p.Upstream}[dead].Close() })
			var failed *Error
			if err := w.end(t); !errors.As(err, &failed) || failed.Side != dead {
				t.Errorf("ended with %v, want a failure of the %s's connection", err, dead)
			}
			expectEnd(t, w.client)
			expectEnd(t, w.upstream)
		}
	})
}
