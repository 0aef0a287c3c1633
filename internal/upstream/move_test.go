package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"openclaw-sandbox/internal/http1/http1test"
)

// A large body of known length passes unchanged, and what comes after it passes to
// nobody; a body that is shorter breaks off.
func TestLargeBodies(t *testing.T) {
	body := make([]byte, 3*wholesaleSize+1)
	for i := range body {
		body[i] = byte(i * 7 >> 3)
	}
	for name, c := range map[string]struct {
		says, sends int
		after       string
		whole       bool
	}{
		"as it says":   {len(body), len(body), "", true},
		"and more":     {len(body), len(body), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", true},
		"cut off":      {len(body), len(body) - 1, "", false},
		"at the limit": {wholesaleSize, wholesaleSize, "", true},
	} {
		addr := gateway(t, func(_ int, conn net.Conn, br *bufio.Reader) {
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", c.says)
				conn.Write(body[:c.sends])
				io.WriteString(conn, c.after)
				if c.sends < c.says {
					return
				}
			}
		})
		p := client(Options{}).Pool(addr)
		t.Cleanup(p.Close)
		srv := http1test.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := http.Header{}
			EndToEnd(h, r.Header)
			if err := p.Serve(w, r, h, nil); err != nil {
				slog.Error("unexpected", "error", err)
			}
		}))
		for range 2 { // over the same connections, where they may be used again
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			cancel()
			if c.whole && (err != nil || !bytes.Equal(got, body[:c.says])) || !c.whole && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: got %d bytes, %v", name, len(got), err)
			}
		}
		srv.Close()
	}
}
