package launch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"
)

// inProcess is a transport that runs a handler beside the client, without a
// network, so that time may be simulated.
type inProcess struct{ h http.Handler }

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	body, w := io.Pipe()
	rw := &responder{w: w, header: http.Header{}, status: http.StatusOK, begun: make(chan struct{})}
	stop := context.AfterFunc(r.Context(), func() { w.CloseWithError(r.Context().Err()) })
	go func() {
		defer stop()
		t.h.ServeHTTP(rw, r)
		rw.begin()
		w.Close()
	}()
	select {
	case <-rw.begun:
		return &http.Response{StatusCode: rw.status, Header: rw.header, Body: body, ContentLength: -1, Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

type responder struct {
	w      *io.PipeWriter
	header http.Header
	status int
	once   sync.Once
	begun  chan struct{} // closed when header and status are final
}

func (r *responder) begin()                      { r.once.Do(func() { close(r.begun) }) }
func (r *responder) Header() http.Header         { return r.header }
func (r *responder) WriteHeader(status int)      { r.status = status; r.begin() }
func (r *responder) Write(b []byte) (int, error) { r.begin(); return r.w.Write(b) }
func (r *responder) Flush()                      {}

// simulated is a launcher for use inside a synctest bubble; Consul is away.
func simulated(t *testing.T, cfg Config, n http.Handler, loc Locator) *Launcher {
	t.Helper()
	nc, err := nomad.NewClient(&nomad.Config{Address: "http://nomad.test", HttpClient: &http.Client{Transport: inProcess{n}}})
	if err != nil {
		t.Fatal(err)
	}
	cc, err := consul.NewClient(&consul.Config{Address: "consul.test", HttpClient: &http.Client{Transport: away{}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := New(ctx, cfg, nc, cc, loc, slog.New(slog.DiscardHandler), nil)
	t.Cleanup(func() { cancel(); l.Wait() })
	return l
}

type away struct{}

func (away) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("away") }
