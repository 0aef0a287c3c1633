package webhook

import (
	"errors"
	"io"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"openclaw-sandbox/internal/sandbox"
)

// stalled is a body of which nothing comes until it is let go.
type stalled struct {
	reading *sync.WaitGroup
	let     chan struct{}
}

func (s stalled) Read([]byte) (int, error) {
	s.reading.Done()
	<-s.let
	return 0, io.ErrUnexpectedEOF
}

// Bodies whose signature was not checked yet take a bounded amount of memory in all; large
// ones do not keep small ones out, and the room is given back.
func TestUnverifiedBodies(t *testing.T) {
	h := hook("slack", Slack, folder(t, map[string]string{"alice": slackSecret}))
	h.MaxBody = 1 << 20
	s := New([]Hook{h})
	verify := func(size int64, body io.Reader) *Refusal {
		r := httptest.NewRequest("POST", "/slack", body)
		r.ContentLength = size
		r.Header.Set("X-Slack-Signature", slackSum)
		r.Header.Set("X-Slack-Request-Timestamp", "1531420618")
		var refused *Refusal
		err := s.Verify(httptest.NewRecorder(), r, h, sandbox.User("alice"))
		if !errors.As(err, &refused) {
			t.Errorf("Verify returned %v, want a refusal", err)
			return &Refusal{}
		}
		return refused
	}
	s.now = func() time.Time { return slackNow }
	const fit = unverifiedBytes >> 20
	let := make(chan struct{})
	var reading, done sync.WaitGroup
	reading.Add(fit)
	for range fit {
		done.Go(func() { verify(1<<20, stalled{&reading, let}) })
	}
	reading.Wait()
	if e := verify(1<<20, broken{}); e.Result != Limited || !errors.Is(e.Err, errBusy) || e.RetryAfter <= 0 {
		t.Errorf("one more large body: %+v", e)
	}
	if e := verify(1000, broken{}); errors.Is(e.Err, errBusy) {
		t.Errorf("a small body meanwhile: %+v", e)
	}
	close(let)
	done.Wait()
	if e := verify(1<<20, broken{}); errors.Is(e.Err, errBusy) {
		t.Errorf("after the others: %+v", e)
	}
}
