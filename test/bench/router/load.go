package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"openclaw-sandbox/test/rig"
)

const (
	host = user + ".localhost"
	// connections at work at a time.
	connections = 64
	// warm is before anything counts.
	warm = 500 * time.Millisecond
)

func sum(token string) string {
	s := sha256.Sum256([]byte(token))
	return hex.EncodeToString(s[:])
}

// header is what every request bears, to whichever proxy: about what a browser sends.
func header() http.Header {
	return http.Header{"Authorization": {"Bearer " + token}, "User-Agent": {"Mozilla/5.0 (X11; Linux x86_64) bench"}, "Accept": {"*/*"},
		"Accept-Language": {"en"}, "Cookie": {"session=0123456789abcdef"}}
}

// sample is what one load did to one proxy.
type sample struct {
	cpu       time.Duration // of the proxy, per request
	rate      float64       // requests a second
	p50, p99  time.Duration
	completed int
}

// client does one request after the other on a connection of its own.
type client interface {
	do() error
	Close() error
}

// load has clients at work at the same time, for a warm-up and then for the time
// that counts, and reads what the process used meanwhile.
func load(ctx context.Context, pid int, duration time.Duration, dial func(n int) (client, error)) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex // guards took and counting
	var took []time.Duration
	counting := false
	for n := range connections {
		c, err := dial(n)
		if err != nil {
			cancel()
			g.Wait()
			return sample{}, err
		}
		g.Go(func() error {
			defer c.Close()
			for ctx.Err() == nil {
				begin := time.Now()
				if err := c.do(); err != nil {
					return err
				}
				late := time.Since(begin)
				mu.Lock()
				if counting {
					took = append(took, late)
				}
				mu.Unlock()
			}
			return nil
		})
	}
	var before, after time.Duration
	var begin, end time.Time
	g.Go(func() (err error) {
		defer cancel()
		if err := pause(ctx, warm); err != nil {
			return err
		}
		if before, err = cpu(pid); err != nil {
			return err
		}
		begin = time.Now()
		mu.Lock()
		counting = true
		mu.Unlock()
		err = pause(ctx, duration)
		mu.Lock()
		counting = false
		mu.Unlock()
		end = time.Now()
		if err != nil {
			return err
		}
		after, err = cpu(pid)
		return err
	})
	if err := g.Wait(); err != nil {
		return sample{}, err
	}
	if len(took) == 0 {
		return sample{}, fmt.Errorf("no request was answered within %s", duration)
	}
	slices.Sort(took)
	return sample{cpu: (after - before) / time.Duration(len(took)), rate: float64(len(took)) / end.Sub(begin).Seconds(),
		p50: took[len(took)/2], p99: took[len(took)*99/100], completed: len(took)}, nil
}

// getter asks for n bytes again and again on one connection.
type getter struct {
	net.Conn
	r       *bufio.Reader
	request []byte
	body    []byte // read at once, so that this side is no brake
}

func dialHTTP(addr, path string, n int) (*getter, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	req := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	for name, v := range header() {
		req = fmt.Appendf(req, "%s: %s\r\n", name, v[0])
	}
	return &getter{Conn: c, r: bufio.NewReaderSize(c, 16<<10), request: append(req, "\r\n"...), body: make([]byte, n+1)}, nil
}

func (g *getter) do() error {
	if _, err := g.Write(g.request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(g.r, nil)
	if err != nil {
		return err
	}
	n, err := io.ReadFull(resp.Body, g.body)
	if err != io.ErrUnexpectedEOF || n != len(g.body)-1 || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s with %d bytes, want %d: %w", resp.Status, n, len(g.body)-1, err)
	}
	return nil
}

// first is the time until the first byte of a stream is there; the rest is read too.
func (g *getter) first() (time.Duration, error) {
	begin := time.Now()
	if _, err := g.Write(g.request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(g.r, nil)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the stream: %s", resp.Status)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	_, err = io.Copy(io.Discard, resp.Body)
	return took, err
}

// stream measures how much later than from the stub itself a stream's first byte
// comes through the proxy, one request at a time, in turns.
func stream(ctx context.Context, addr, direct string, requests int) (added time.Duration, err error) {
	var took [2][]time.Duration
	var conns [2]*getter
	for i, a := range []string{direct, addr} {
		if conns[i], err = dialHTTP(a, "/stream", 0); err != nil {
			return 0, err
		}
		defer conns[i].Close()
	}
	for n := range requests {
		for i := range conns {
			i ^= n & 1
			t, err := conns[i].first()
			if err != nil {
				return 0, err
			}
			took[i] = append(took[i], t)
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	return took[1][requests/2] - took[0][requests/2], nil
}

// echoer has a message echoed again and again.
type echoer struct {
	*websocket.Conn
	message []byte
}

func (e *echoer) do() error { return rig.Echo(e.Conn, e.message) }

func socketHeader() http.Header {
	h := header()
	h.Set("Host", host)
	return h
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
