// Package events follows Nomad's event stream, once for all jobs of a kind, and
// hands each job's news to who follows that job. A thousand starts at once are one
// connection, and no call that repeats.
//
// The stream may break, and what passed meanwhile is lost: each follower is then
// told of a gap, and reads its job itself.
package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"openclaw-sandbox/internal/pause"

	nomad "github.com/hashicorp/nomad/api"
)

// Config says what to follow.
type Config struct {
	// Namespace is the jobs' ("" for default), and Prefix what their ids begin with.
	Namespace, Prefix string
	// MinBackoff and MaxBackoff bound the pause before a broken stream is opened again.
	MinBackoff, MaxBackoff time.Duration
	// Marked, if set, is told of every allocation of these jobs whose event has the text
	// Mark in it, followed or not. It must return soon.
	Mark   string
	Marked func(*nomad.Allocation)
	// Ended, if set, gets every allocation of these jobs whose tasks have ended (client
	// status complete or failed), followed or not. It must return soon.
	Ended func(*nomad.Allocation)
	// Silence is how long a stream that says nothing is believed to be alive; Nomad
	// sends a heartbeat every 30 s.
	Silence time.Duration
}

// DefaultConfig are the settings that a deployment rarely changes.
func DefaultConfig() Config {
	return Config{MinBackoff: 100 * time.Millisecond, MaxBackoff: 5 * time.Second, Silence: 75 * time.Second}
}

// Stream is the one stream. Run keeps it; the other methods may be called from anywhere.
type Stream struct {
	config Config
	nomad  *nomad.Client
	log    *slog.Logger
	live   atomic.Bool

	mu        sync.Mutex // guards followers; taken before a Follower's
	followers map[string]map[*Follower]struct{}
}

// New returns a stream that Run opens.
func New(c Config, client *nomad.Client, log *slog.Logger) *Stream {
	return &Stream{config: c, nomad: client, log: log, followers: map[string]map[*Follower]struct{}{}}
}

// Live reports whether the stream is open: if so, followers need not look for
// themselves but after a gap.
func (s *Stream) Live() bool { return s.live.Load() }

// News is what became known of a job since the last.
type News struct {
	Allocation *nomad.Allocation // its newest, as it is now; without its job
	Evaluation *nomad.Evaluation // the newest that could not place all
	// Gap: something may have been missed, or it is the job itself that changed.
	Gap bool
}

// Follower follows one job.
type Follower struct {
	// C yields when there is news.
	C <-chan struct{}

	s    *Stream
	job  string
	c    chan struct{}
	mu   sync.Mutex // guards news
	news News
}

// Follow begins with a gap: the job's past is not known.
func (s *Stream) Follow(job string) *Follower {
	c := make(chan struct{}, 1)
	f := &Follower{C: c, c: c, s: s, job: job}
	f.tell(func(n *News) { n.Gap = true })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followers[job] == nil {
		s.followers[job] = map[*Follower]struct{}{}
	}
	s.followers[job][f] = struct{}{}
	return f
}

// Close ends following.
func (f *Follower) Close() {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	delete(f.s.followers[f.job], f)
	if len(f.s.followers[f.job]) == 0 {
		delete(f.s.followers, f.job)
	}
}

// Take returns the news and forgets them.
func (f *Follower) Take() News {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.news
	f.news = News{}
	return n
}

func (f *Follower) tell(change func(*News)) {
	f.mu.Lock()
	change(&f.news)
	f.mu.Unlock()
	select {
	case f.c <- struct{}{}:
	default: // it has not heard of the news before
	}
}

// tell tells a job's followers; of every job, if job is empty.
func (s *Stream) tell(job string, change func(*News)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if job != "" {
		for f := range s.followers[job] {
			f.tell(change)
		}
		return
	}
	for _, all := range s.followers {
		for f := range all {
			f.tell(change)
		}
	}
}

func (s *Stream) followed(job string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.followers[job]) > 0
}

// Run keeps the stream open until ctx ends.
func (s *Stream) Run(ctx context.Context) {
	backoff := s.config.MinBackoff
	for ctx.Err() == nil {
		opened := time.Now()
		err := s.read(ctx)
		if ctx.Err() != nil {
			return
		}
		if s.live.Swap(false) {
			s.tell("", func(n *News) { n.Gap = true })
			s.log.Warn("Nomad's event stream broke; starts are followed by looking until it is back", "error", err)
		}
		if time.Since(opened) > s.config.MaxBackoff {
			backoff = s.config.MinBackoff
		}
		pause.For(ctx, backoff/2+rand.N(backoff)) // spread, so that routers do not come back all at once
		backoff = min(2*backoff, s.config.MaxBackoff)
	}
}

// errSilent: not even a heartbeat came.
var errSilent = errors.New("the stream fell silent")

// read opens the stream and hands out what it says until it ends.
func (s *Stream) read(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(s.config.Silence, func() { cancel(errSilent) })
	defer silence.Stop()
	body, err := s.nomad.Raw().Response("/v1/event/stream?topic=Allocation&topic=Evaluation", (&nomad.QueryOptions{Namespace: s.config.Namespace}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("open the event stream: %w", errors.Join(context.Cause(ctx), err))
	}
	defer body.Close()
	lines := json.NewDecoder(body)
	for {
		var f frame
		if err := lines.Decode(&f); err != nil {
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read the event stream: %w", errors.Join(context.Cause(ctx), err))
		}
		silence.Reset(s.config.Silence)
		if f.Error != "" {
			return fmt.Errorf("the event stream: %s", f.Error)
		}
		// The first line, often an empty one, says that nothing is missed from here on.
		if !s.live.Swap(true) {
			s.tell("", func(n *News) { n.Gap = true })
			s.log.Info("following Nomad's event stream")
		}
		for _, e := range f.Events {
			if err := s.hand(e); err != nil {
				s.log.Warn("an event of Nomad is ignored", "topic", e.Topic, "key", e.Key, "error", err)
			}
		}
	}
}

// triggerDeregister is why Nomad evaluates a job that was stopped.
const triggerDeregister = "job-deregister"

// frame is a line of the stream. The payload is decoded only if somebody follows its job.
type frame struct {
	Events []event
	Error  string
}

type event struct {
	Topic      nomad.Topic
	Key        string
	FilterKeys []string
	Payload    json.RawMessage
}

func (s *Stream) hand(e event) error {
	// The job's id is among an event's filter keys.
	at := slices.IndexFunc(e.FilterKeys, func(k string) bool { return strings.HasPrefix(k, s.config.Prefix) })
	if at < 0 {
		return nil
	}
	job := e.FilterKeys[at]
	marked := s.config.Marked != nil && e.Topic == nomad.TopicAllocation && bytes.Contains(e.Payload, []byte(s.config.Mark))
	over := s.config.Ended != nil && e.Topic == nomad.TopicAllocation && mayBeOver(e.Payload)
	if !marked && !over && !s.followed(job) {
		return nil
	}
	var p struct {
		Allocation *nomad.Allocation
		Evaluation *nomad.Evaluation
	}
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return err
	}
	if marked && p.Allocation != nil && p.Allocation.JobID == job {
		s.config.Marked(p.Allocation)
	}
	if over && p.Allocation != nil && p.Allocation.JobID == job &&
		(p.Allocation.ClientStatus == nomad.AllocClientStatusComplete || p.Allocation.ClientStatus == nomad.AllocClientStatusFailed) {
		s.config.Ended(p.Allocation)
	}
	switch {
	case p.Allocation != nil && p.Allocation.JobID == job:
		s.tell(job, func(n *News) { n.allocation(p.Allocation) })
	case p.Evaluation == nil || p.Evaluation.JobID != job:
	case len(p.Evaluation.FailedTGAllocs) > 0:
		s.tell(job, func(n *News) { n.Evaluation = p.Evaluation })
	case p.Evaluation.TriggeredBy == triggerDeregister:
		s.tell(job, func(n *News) { n.Gap = true }) // the job was stopped
	}
	return nil
}

// mayBeOver tells cheaply that an allocation whose event this is may have ended, so that
// only such events are decoded.
func mayBeOver(payload []byte) bool {
	return bytes.Contains(payload, []byte(`"`+nomad.AllocClientStatusComplete+`"`)) || bytes.Contains(payload, []byte(`"`+nomad.AllocClientStatusFailed+`"`))
}

func (n *News) allocation(a *nomad.Allocation) {
	if was := n.Allocation; was == nil || a.CreateIndex > was.CreateIndex || a.CreateIndex == was.CreateIndex && a.ModifyIndex >= was.ModifyIndex {
		n.Allocation = a
	}
}
