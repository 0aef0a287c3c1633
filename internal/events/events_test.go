package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	nomad "github.com/hashicorp/nomad/api"
)

// stream is a transport whose every request is a pipe that the test writes.
type stream struct {
	opened chan *io.PipeWriter
	refuse atomic.Bool
	mu     sync.Mutex // guards asked
	asked  []string
}

func (s *stream) tries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *stream) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.RequestURI())
	s.mu.Unlock()
	if s.refuse.Load() {
		return nil, errors.New("connection refused")
	}
	body, w := io.Pipe()
	context.AfterFunc(r.Context(), func() { w.CloseWithError(r.Context().Err()) })
	s.opened <- w
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body, ContentLength: -1, Request: r}, nil
}

func begin(t *testing.T) (*Stream, *stream) {
	t.Helper()
	rt := &stream{opened: make(chan *io.PipeWriter, 1)}
	client, err := nomad.NewClient(&nomad.Config{Address: "http://nomad.test", HttpClient: &http.Client{Transport: rt}})
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Prefix = "openclaw/dispatch-"
	s := New(c, client, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s, rt
}

func allocation(job, id, status string, created, modified int) string {
	return fmt.Sprintf(`{"Index":%d,"Events":[{"Topic":"Allocation","Type":"AllocationUpdated","Key":%q,"Namespace":"default","FilterKeys":[%q,""],"Index":%[1]d,"Payload":{"Allocation":{"ID":%[2]q,"JobID":%[3]q,"ClientStatus":%[4]q,"CreateIndex":%[5]d,"ModifyIndex":%[1]d}}}]}`, modified, id, job, status, created)
}

func evaluation(job, body string) string {
	return fmt.Sprintf(`{"Index":9,"Events":[{"Topic":"Evaluation","Key":"e","FilterKeys":[%q,""],"Payload":{"Evaluation":{"ID":"e","JobID":%[1]q,%s}}}]}`, job, body)
}

func quiet(f *Follower) bool {
	synctest.Wait()
	select {
	case <-f.C:
		return false
	default:
		return true
	}
}

// told takes what is new, and fails the test if nothing is.
func told(t *testing.T, f *Follower) News {
	t.Helper()
	if quiet(f) {
		t.Fatal("nothing was told")
	}
	return f.Take()
}

func TestNews(t *testing.T) {
	const alice = "openclaw/dispatch-alice-1"
	for name, c := range map[string]struct {
		lines []string
		want  string // what the follower learns; empty for nothing
	}{
		"heartbeat":         {[]string{`{}`}, ""},
		"another's":         {[]string{allocation("openclaw/dispatch-bob-1", "b", "running", 1, 2)}, ""},
		"another prefix":    {[]string{allocation("web", "b", "running", 1, 2)}, ""},
		"own":               {[]string{allocation(alice, "a", "running", 1, 2)}, "a running"},
		"two at once":       {[]string{allocation(alice, "a", "pending", 1, 2), allocation(alice, "a", "running", 1, 3)}, "a running"},
		"late":              {[]string{allocation(alice, "a", "running", 1, 3), allocation(alice, "a", "pending", 1, 2)}, "a running"},
		"a newer one":       {[]string{allocation(alice, "b", "pending", 5, 5), allocation(alice, "a", "failed", 1, 6)}, "b pending"},
		"no room":           {[]string{evaluation(alice, `"FailedTGAllocs":{"sandbox":{"NodesEvaluated":2}}`)}, "no room"},
		"placed":            {[]string{evaluation(alice, `"TriggeredBy":"job-register"`)}, ""},
		"stopped":           {[]string{evaluation(alice, `"TriggeredBy":"job-deregister"`)}, "gap"},
		"a strange payload": {[]string{`{"Events":[{"Topic":"Allocation","FilterKeys":["` + alice + `"],"Payload":{"Allocation":7}}]}`, allocation(alice, "a", "running", 1, 2)}, "a running"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, rt := begin(t)
				w := <-rt.opened
				fmt.Fprintln(w, `{}`)
				f, twin := s.Follow(alice), s.Follow(alice)
				defer f.Close()
				defer twin.Close()
				if !told(t, f).Gap || !told(t, twin).Gap {
					t.Error("the past of a job was taken for known")
				}
				for _, line := range c.lines {
					fmt.Fprintln(w, line)
				}
				for _, one := range []*Follower{f, twin} {
					if c.want == "" {
						if !quiet(one) {
							t.Errorf("told %+v", one.Take())
						}
						continue
					}
					got, n := "", told(t, one)
					switch {
					case n.Gap:
						got = "gap"
					case n.Allocation != nil:
						got = n.Allocation.ID + " " + n.Allocation.ClientStatus
					case n.Evaluation != nil:
						got = "no room"
					}
					if got != c.want {
						t.Errorf("told %q, want %q", got, c.want)
					}
				}
			})
		})
	}
}

// What passed while the stream was broken is lost, and said to be.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, rt := begin(t)
		w := <-rt.opened
		synctest.Wait()
		if s.Live() {
			t.Error("live before Nomad said anything")
		}
		fmt.Fprintln(w, `{}`)
		f := s.Follow("openclaw/dispatch-alice-1")
		told(t, f)
		if !s.Live() {
			t.Error("not live")
		}
		rt.refuse.Store(true)
		w.Close()
		if n := told(t, f); !n.Gap || s.Live() {
			t.Errorf("after the end: %+v, live %t", n, s.Live())
		}
		before := len(rt.tries())
		time.Sleep(time.Minute)
		if n := len(rt.tries()) - before; n < 6 || n > 40 {
			t.Errorf("%d tries in a minute", n)
		}
		rt.refuse.Store(false)
		w = <-rt.opened
		fmt.Fprintln(w, `{}`)
		if n := told(t, f); !n.Gap || !s.Live() {
			t.Errorf("open again: %+v, live %t", n, s.Live())
		}
		f.Close()
		fmt.Fprintln(w, allocation("openclaw/dispatch-alice-1", "a", "running", 1, 2))
		if !quiet(f) {
			t.Error("told after the end")
		}
		if len(s.followers) != 0 {
			t.Error("a follower is kept")
		}
		for _, uri := range rt.tries() {
			if !strings.Contains(uri, "topic=Allocation") || !strings.Contains(uri, "topic=Evaluation") {
				t.Errorf("asked for %s", uri)
			}
		}
	})
}

// A connection that is dead without saying so is noticed; one that only has
// nothing to say is left alone.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, rt := begin(t)
		w := <-rt.opened
		for range 20 {
			fmt.Fprintln(w, `{}`)
			time.Sleep(30 * time.Second)
		}
		if !s.Live() || len(rt.tries()) != 1 {
			t.Errorf("after ten minutes of heartbeats: live %t, opened %d times", s.Live(), len(rt.tries()))
		}
		time.Sleep(time.Minute)
		w = <-rt.opened
		if s.Live() {
			t.Error("live without a word")
		}
		fmt.Fprintln(w, `{"Error":"ACL token expired"}`)
		synctest.Wait()
		if s.Live() {
			t.Error("live after an error")
		}
	})
}

// Every allocation that has ended is reported, followed or not; others are not.
func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := &stream{opened: make(chan *io.PipeWriter, 1)}
		client, err := nomad.NewClient(&nomad.Config{Address: "http://nomad.test", HttpClient: &http.Client{Transport: rt}})
		if err != nil {
			t.Fatal(err)
		}
		var ended []string
		c := DefaultConfig()
		c.Prefix = "openclaw/dispatch-"
		c.Ended = func(a *nomad.Allocation) { ended = append(ended, a.ID) }
		s := New(c, client, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { s.Run(ctx); close(over) }()
		w := <-rt.opened
		for n, a := range []struct{ job, id, status string }{
			{"openclaw/dispatch-1", "a", "running"}, {"openclaw/dispatch-1", "a", "complete"}, {"openclaw/dispatch-2", "b", "failed"},
			{"openclaw/dispatch-3", "c", "lost"}, {"openclaw/dispatch-4", "complete", "running"}, {"other/dispatch-5", "e", "failed"},
		} {
			fmt.Fprintln(w, allocation(a.job, a.id, a.status, 1, n+2))
		}
		synctest.Wait()
		cancel()
		<-over
		if want := []string{"a", "b"}; !slices.Equal(ended, want) {
			t.Errorf("ended: %q, want %q", ended, want)
		}
	})
}
