package relay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds the waits of a test; none of them is expected to last.
const patience = 20 * time.Second

// ways are the ways to relay; each must behave the same.
var ways = map[string]Options{"parked": {Loops: 2}, "goroutines": {goroutines: true}}

// tcp is a TCP connection: the near end is the relay's, the far end the test's.
func tcp(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return accepted.(*net.TCPConn), dialled.(*net.TCPConn)
}

// wired is a pair in a relay, seen from outside.
type wired struct {
	Session
	relay            *Relay
	client, upstream *net.TCPConn
	done             chan error
	activity         atomic.Int64
	said             atomic.Value // string
}

// connect makes a relay with one pair; change may change the pair first.
func connect(t testing.TB, o Options, change func(*Pair)) *wired {
	t.Helper()
	r := New(o, slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	return join(t, r, change)
}

func join(t testing.TB, r *Relay, change func(*Pair)) *wired {
	t.Helper()
	w := &wired{relay: r, done: make(chan error, 2)}
	var p Pair
	p.Client, w.client = tcp(t)
	p.Upstream, w.upstream = tcp(t)
	p.Done = func(err error) { w.done <- err }
	p.Activity = func(head []byte) {
		w.activity.Add(1)
		w.said.Store(string(head))
	}
	if change != nil {
		change(&p)
	}
	for _, far := range []net.Conn{w.client, w.upstream} {
		far.SetDeadline(time.Now().Add(patience))
	}
	w.Session = r.Start(p)
	return w
}

// end waits for the pair's end.
func (w *wired) end(t testing.TB) error {
	t.Helper()
	select {
	case err := <-w.done:
		return err
	case <-time.After(patience):
		t.Fatal("the pair did not end")
		return nil
	}
}

// every runs a test for each way to relay.
func every(t *testing.T, f func(t *testing.T, o Options)) {
	for name, o := range ways {
		t.Run(name, func(t *testing.T) { f(t, o) })
	}
}

func expect(t testing.TB, from io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(from, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes %.40q (%v), want %d bytes %.40q", n, got[:n], err, len(want), want)
	}
}

func expectEnd(t testing.TB, from io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(from); err != nil || len(b) > 0 {
		t.Fatalf("got %.40q (%v), want the end", b, err)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(b)
	return b
}

func TestBufferedBytesFirst(t *testing.T) {
	for _, size := range []int{5, 3 * MaxPending} {
		every(t, func(t *testing.T, o Options) {
			one, two := noise(size), noise(size+1)
			w := connect(t, o, func(p *Pair) { p.FromClient, p.FromUpstream = one, two })
			w.client.Write([]byte("later"))
			w.upstream.Write([]byte("later"))
			expect(t, w.upstream, append(bytes.Clone(one), "later"...))
			expect(t, w.client, append(bytes.Clone(two), "later"...))
		})
	}
}

// frames is a stream of so many bytes at least, of frames of all sizes; most
// bytes are in large ones.
func frames(size int) []byte {
	var b []byte
	for i := 0; len(b) < size; i++ {
		n := []int{0, 10, 1000, 65536, 1 << 20, 200_000, 200_000, 200_001}[i%8]
		f := frame(2, n, i%2 == 0)
		copy(f[len(f)-n:], noise(n))
		b = append(b, f...)
	}
	return b
}

// streams are what WebSockets carry, and what nobody can make sense of.
var streams = map[string]func(size int) []byte{"frames": frames, "noise": noise}

// Both directions at once, in writes of any size.
func TestTransfer(t *testing.T) {
	for name, stream := range streams {
		t.Run(name, func(t *testing.T) {
			every(t, func(t *testing.T, o Options) { transferBoth(t, o, stream) })
		})
	}
}

func transferBoth(t *testing.T, o Options, stream func(size int) []byte) {
	w := connect(t, o, nil)
	var wg sync.WaitGroup
	carry := func(from, to *net.TCPConn, size int) {
		all := stream(size)
		size = len(all)
		sum := sha256.New()
		wg.Go(func() {
			for rest := all; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(200_000))
				from.Write(rest[:n])
				rest = rest[n:]
			}
			from.CloseWrite()
			sum.Write(all)
		})
		got := sha256.New()
		wg.Go(func() {
			if n, err := io.Copy(got, to); err != nil || n != int64(size) {
				t.Errorf("%d of %d bytes came: %v", n, size, err)
			}
		})
		t.Cleanup(func() {
			if !bytes.Equal(sum.Sum(nil), got.Sum(nil)) {
				t.Error("what came is not what was sent")
			}
		})
	}
	carry(w.client, w.upstream, 6<<20)
	carry(w.upstream, w.client, 6<<20+77)
	wg.Wait()
	if err := w.end(t); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// One side may have said all and still listen; the last bytes come with the end.
func TestHalfClose(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		for _, first := range []Side{Client, Upstream} {
			for range 50 { // the end and the last bytes come in one event or in two
				w := connect(t, o, nil)
				a, b := w.client, w.upstream
				if first == Upstream {
					a, b = b, a
				}
				last := noise(100)
				a.Write(last)
				a.CloseWrite()
				expect(t, b, last)
				expectEnd(t, b)
				b.Write(last)
				b.CloseWrite()
				expect(t, a, last)
				expectEnd(t, a)
				if err := w.end(t); err != nil {
					t.Fatalf("the %s ended first: ended with %v", first, err)
				}
			}
		}
	})
}

// A gateway says its last and goes without reading what it was sent: the client
// must hear it all, though the gateway's end is a reset.
func TestLastBytesOfOneWhoTakesNothing(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		w := connect(t, o, nil)
		last := noise(200_000)
		w.upstream.Write(last)
		w.upstream.CloseWrite()
		expect(t, w.client, last)
		w.upstream.Close()
		for {
			if _, err := w.client.Write([]byte("unheard")); err != nil {
				break
			}
			select {
			case err := <-w.done:
				w.done <- err
			default:
				continue
			}
			break
		}
		var failed *Error
		if err := w.end(t); !errors.As(err, &failed) || failed.Side != Upstream {
			t.Errorf("ended with %v, want a failure of the gateway's connection", err)
		}
	})
}

func TestReset(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		for _, who := range []Side{Client, Upstream} {
			w := connect(t, o, nil)
			a, b := w.client, w.upstream
			if who == Upstream {
				a, b = b, a
			}
			a.Write([]byte("x"))
			expect(t, b, []byte("x"))
			a.SetLinger(0)
			a.Close()
			expectEnd(t, b)
			var failed *Error
			if err := w.end(t); !errors.As(err, &failed) || failed.Side != who || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("ended with %v, want a reset of the %s's connection", err, who)
			}
			if n := w.relay.Len(); n != 0 {
				t.Errorf("Len() = %d", n)
			}
		}
	})
}

// A side that was reset after it had ended what it sends must not stay for ever.
func TestResetAfterHalfClose(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		if o.goroutines {
			t.Skip("a goroutine that waits for one side's bytes does not see the other's reset; the next write or the keep-alive of the first side does")
		}
		w := connect(t, o, nil)
		w.client.CloseWrite()
		expectEnd(t, w.upstream)
		w.client.SetLinger(0)
		w.client.Close()
		if err := w.end(t); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("ended with %v, want a reset", err)
		}
	})
}

// socketBuffers is what the kernel holds of one connection, at most: it is set
// small at both ends (the kernel doubles it for its own needs).
const socketBuffers = 4 * 2 * 64 << 10

func TestSlowReaderIsBounded(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		for _, from := range []Side{Client, Upstream} {
			w := connect(t, o, func(p *Pair) {
				for _, c := range []net.Conn{p.Client, p.Upstream} {
					c.(*net.TCPConn).SetReadBuffer(64 << 10)
					c.(*net.TCPConn).SetWriteBuffer(64 << 10)
				}
			})
			a, b := w.client, w.upstream
			if from == Upstream {
				a, b = b, a
			}
			for _, c := range []*net.TCPConn{a, b} {
				c.SetReadBuffer(64 << 10)
				c.SetWriteBuffer(64 << 10)
			}
			all := frames(4 << 20)
			size := len(all)
			sent := 0
			for { // until nothing moves any more
				a.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				n, err := a.Write(all[sent:])
				sent += n
				if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
					break
				}
				if sent == size {
					t.Fatalf("all of %d bytes were taken, though nobody reads", size)
				}
			}
			if sent > 2*socketBuffers+MaxPending {
				t.Errorf("%d bytes were taken, want at most %d", sent, 2*socketBuffers+MaxPending)
			}
			b.Write([]byte("the other way")) // is open
			expect(t, a, []byte("the other way"))
			a.SetWriteDeadline(time.Now().Add(patience))
			go func() { a.Write(all[sent:]); a.CloseWrite() }()
			if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, all) {
				t.Errorf("%d of %d bytes came, or others (%v)", len(got), size, err)
			}
		}
	})
}

// client is a frame as a client sends it, with a mask.
func client(first byte, payload string) []byte {
	b := []byte{first, 0x80 | byte(len(payload))}
	if len(payload) > 125 {
		b = binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(len(payload)))
	}
	mask := []byte{9, 8, 7, 6}
	b = append(b, mask...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func TestActivity(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		want  int64
		said  string
	}{
		"text":   {[]byte{0x81, 0x85, 1, 2, 3, 4, 'h' ^ 1, 'e' ^ 2, 'l' ^ 3, 'l' ^ 4, 'o' ^ 1}, 1, "hello"},
		"two":    {append(client(0x81, "one"), client(0x82, "two")...), 2, "two"},
		"long":   {client(0x81, strings.Repeat("x", 1000)), 1, strings.Repeat("x", Head)},
		"binary": {[]byte{0x82, 0x80, 0, 0, 0, 0}, 1, ""},
		"rest":   {[]byte{0x80, 0x80, 0, 0, 0, 0}, 1, ""},
		"ping":   {[]byte{0x89, 0x80, 0, 0, 0, 0}, 0, ""},
		"pong":   {[]byte{0x8a, 0x80, 0, 0, 0, 0}, 0, ""},
		"close":  {[]byte{0x88, 0x80, 0, 0, 0, 0}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			every(t, func(t *testing.T, o Options) {
				w := connect(t, o, nil)
				w.client.Write(c.frame)
				expect(t, w.upstream, c.frame)
				w.upstream.Write(c.frame) // does not count
				expect(t, w.client, c.frame)
				if n := w.activity.Load(); n != c.want {
					t.Errorf("reported %d times, want %d", n, c.want)
				}
				if said, _ := w.said.Load().(string); said != c.said {
					t.Errorf("it said %q, want %q", said, c.said)
				}
			})
		})
	}
}
