package relay

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

var restartFrame = []byte{0x88, 4, 0x03, 0xf4, 'g', 'o'}

func TestCloseWith(t *testing.T) {
	big := frame(2, 300_000, false)
	for name, c := range map[string]struct {
		before []byte // is sent first, and arrives
		after  []byte // is sent once the end was ordered
		want   []byte // comes after before
	}{
		"silent":                   {nil, nil, restartFrame},
		"between frames":           {frame(1, 10, false), nil, restartFrame},
		"in a head":                {big[:1], big[1:], append(bytes.Clone(big[1:]), restartFrame...)},
		"in a length":              {big[:5], big[5:], append(bytes.Clone(big[5:]), restartFrame...)},
		"in a large frame":         {big[:150_000], big[150_000:], append(bytes.Clone(big[150_000:]), restartFrame...)},
		"after many large ones":    {append(bytes.Repeat(big, 10), big[:150_000]...), big[150_000:], append(bytes.Clone(big[150_000:]), restartFrame...)},
		"and another frame begins": {big[:150_000], append(bytes.Clone(big[150_000:]), big...), append(bytes.Clone(big[150_000:]), restartFrame...)},
	} {
		t.Run(name, func(t *testing.T) {
			every(t, func(t *testing.T, o Options) {
				w := connect(t, o, nil)
				go w.upstream.Write(c.before)
				expect(t, w.client, c.before)
				w.CloseWith(1012, "go")
				w.CloseWith(1001, "twice")
				w.upstream.Write(c.after)
				got, err := io.ReadAll(w.client)
				// The order may reach the loop when a whole frame more has passed.
				late := append(bytes.Clone(c.after), restartFrame...)
				if err != nil || !bytes.Equal(got, c.want) && !bytes.Equal(got, late) {
					t.Errorf("got %d bytes that end with %x (%v), want %d or %d", len(got), got[max(0, len(got)-8):], err, len(c.want), len(late))
				}
				w.client.Close()
				if err := w.end(t); !errors.Is(err, ErrClosed) {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}

// The end comes even if the client neither reads nor answers, the frame never
// ends, or the gateway has closed itself.
func TestCloseWithIsBounded(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		o.closeWait = 50 * time.Millisecond
		for name, before := range map[string]func(*wired){
			"a client that does not answer": func(*wired) {},
			"a frame that does not end": func(w *wired) {
				w.upstream.Write(frame(2, 10, false)[:5])
				expect(t, w.client, frame(2, 10, false)[:5])
			},
			"a client that does not read":    func(w *wired) { go w.upstream.Write(make([]byte, 64<<20)) },
			"a gateway that has said it all": func(w *wired) { w.upstream.CloseWrite(); expectEnd(t, w.client) },
		} {
			w := connect(t, o, nil)
			before(w)
			begin := time.Now()
			w.CloseWith(1012, "go")
			if err := w.end(t); !errors.Is(err, ErrClosed) {
				t.Errorf("%s: ended with %v", name, err)
			}
			if took := time.Since(begin); took > closeWait {
				t.Errorf("%s: took %s", name, took)
			}
		}
	})
}

// What is sent after a close frame is not a frame any more.
func TestCloseWithAfterTheGatewaysOwn(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		o.closeWait = 50 * time.Millisecond
		w := connect(t, o, nil)
		w.upstream.Write([]byte{0x88, 0})
		expect(t, w.client, []byte{0x88, 0})
		w.CloseWith(1012, "go")
		expectEnd(t, w.client)
		if err := w.end(t); !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	})
}

// A client behind TLS is relayed by goroutines; the close frame reaches it, too.
func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Options{}, slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	w := join(t, r, func(p *Pair) {
		p.Client = tls.Server(p.Client, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
	})
	client := tls.Client(w.client, &tls.Config{InsecureSkipVerify: true})
	payload := noise(3 << 20)
	go client.Write(payload)
	expect(t, w.upstream, payload)
	big := frame(2, 1<<20, false)
	go w.upstream.Write(big)
	expect(t, client, big)
	w.CloseWith(1012, "go")
	expect(t, client, restartFrame)
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %v, want the end", err)
	}
	client.Close()
	if err := w.end(t); !errors.Is(err, ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

// A gateway dies while its client does not read: what the relay has of its words
// is delivered, though what the client says meanwhile is not.
func TestDeadReceiverIsHeardToItsEnd(t *testing.T) {
	every(t, func(t *testing.T, o Options) {
		w := connect(t, o, func(p *Pair) { p.Client.(*net.TCPConn).SetWriteBuffer(64 << 10) })
		w.client.SetReadBuffer(64 << 10)
		all := frames(16 << 20)
		w.upstream.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		sent, err := w.upstream.Write(all)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d bytes were taken: %v", sent, err)
		}
		w.upstream.SetLinger(0)
		w.upstream.Close()
		for w.activity.Load() < 2 { // the first finds out, the second is dropped
			w.client.Write(frame(1, 1, true))
		}
		got, err := io.ReadAll(w.client)
		// Bytes that were never read may reset the client's connection in turn.
		if err != nil && !errors.Is(err, syscall.ECONNRESET) || len(got) < MaxPending/2 || !bytes.Equal(got, all[:len(got)]) {
			t.Errorf("got %d of %d bytes, or others (%v)", len(got), sent, err)
		}
		var failed *Error
		if err := w.end(t); !errors.As(err, &failed) || failed.Side != Upstream {
			t.Errorf("ended with %v, want a failure of the gateway's connection", err)
		}
	})
}
