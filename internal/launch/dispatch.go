package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/pause"
	"openclaw-sandbox/internal/sandbox"
)

// LockPrefix is where the locks of starts lie in Consul's KV.
const LockPrefix = "openclaw/start/"

// dispatchOnce returns the id of the user's one live child job, and dispatches
// it if there is none.
func (l *Launcher) dispatchOnce(ctx context.Context, f *Flight) (string, error) {
	if err := l.take(ctx); err != nil {
		return "", err
	}
	defer l.give()
	u := f.User
	unlock := l.lock(ctx, u)
	defer unlock()
	live, last, err := l.settled(ctx, f)
	if err != nil {
		return "", err
	}
	if len(live) > 0 {
		l.log.Info("following a start that is under way", "user", u, "job", live[0].ID)
		return live[0].ID, l.stopOthers(ctx, u, live)
	}
	if err := l.room(ctx, f.terms.MaxSandboxes); err != nil {
		return "", err
	}
	// A dead child keeps its token until it is collected, so the token must
	// differ after each run; and two routers that see the same past must make the
	// same one.
	write := (&nomad.WriteOptions{Namespace: l.config.Namespace, IdempotencyToken: fmt.Sprintf("openclaw:%s:%s", u, last)}).WithContext(ctx)
	meta := map[string]string{"user": string(u), "generation": last}
	if l.config.Service != nil {
		meta["service"] = l.config.Service(u)
	}
	// The user is in the child's id, so that a look lists theirs and not everybody's.
	resp, _, err := l.nomad.Jobs().Dispatch(l.config.Job, meta, nil, string(u), write)
	if err != nil {
		return "", refused(l.config.Job, err)
	}
	f.dispatched = true
	l.log.Info("dispatched", "user", u, "job", resp.DispatchedJobID)
	job, err := l.keepOldest(ctx, u, resp.DispatchedJobID)
	if err != nil {
		return "", err
	}
	if err := l.withdrawSurplus(ctx, job, f.terms.MaxSandboxes); err != nil {
		f.dispatched = false // nothing came of it
		return "", err
	}
	return job, nil
}

// refused gives a dispatch that Nomad did not take its class: what it answers
// with is the operator's to mend, but for a server that has no leader just now.
func refused(job string, err error) error {
	var answer nomad.UnexpectedResponseError
	if !errors.As(err, &answer) || !answer.HasStatusCode() || noLeader(err) {
		return fmt.Errorf("dispatch: %w", err)
	}
	text := fmt.Sprintf("Nomad refused to start job %q: %.200s; the operator looks at the job and at the router's token.", job, strings.TrimSpace(answer.Body()))
	switch {
	case answer.StatusCode() == http.StatusForbidden:
		text = "Nomad refused the router's token; the operator gives it the right to dispatch and read jobs."
	case strings.Contains(answer.Body(), "not found"):
		text = fmt.Sprintf("Nomad has no job %q; the operator registers it with `nomad job run jobs/openclaw.nomad.hcl`.", job)
	}
	return &sandbox.Failure{Reason: sandbox.ReasonConfig, Message: text, Err: err}
}

// noLeader: the servers are electing one, which takes a moment.
func noLeader(err error) bool { return strings.Contains(err.Error(), "No cluster leader") }

// lock takes the user's lock, so that only one router looks and dispatches at a
// time. Without Consul it goes on: the token and the second look still hold.
func (l *Launcher) lock(ctx context.Context, u sandbox.User) (unlock func()) {
	none := func() {}
	lock, err := l.consul.LockOpts(&consul.LockOptions{
		Key:          LockPrefix + string(u),
		SessionName:  "openclaw start",
		SessionTTL:   "15s",
		LockWaitTime: l.config.LockWait, LockTryOnce: true,
		// The default would keep the lock closed for 15 s after a router's crash.
		LockDelay: time.Millisecond,
	})
	if err != nil {
		l.log.Warn("no lock for a start", "user", u, "error", err)
		return none
	}
	// The session is made without a context, so a Consul that hangs would hold
	// this start for ever: the lock is waited for beside it, and given back if it
	// comes too late.
	ctx, cancel := context.WithTimeout(ctx, l.config.LockWait)
	got := make(chan bool, 1)
	l.wg.Go(func() {
		lost, err := lock.Lock(ctx.Done())
		if err != nil {
			l.log.Warn("no lock for a start", "user", u, "error", err)
		}
		got <- err == nil && lost != nil
	})
	release := func() {
		defer cancel()
		if err := lock.Unlock(); err != nil {
			l.log.Warn("release the lock of a start", "user", u, "error", err)
		}
		// The key must not stay behind for every user that there ever was.
		if err := lock.Destroy(); err != nil && err != consul.ErrLockInUse {
			l.log.Debug("remove the lock of a start", "user", u, "error", err)
		}
	}
	select {
	case ok := <-got:
		if ok {
			return release
		}
	case <-ctx.Done():
		l.wg.Go(func() {
			if <-got {
				release()
			}
		})
	}
	cancel()
	return none
}

// callTimeout bounds one call of Nomad's API.
const callTimeout = 10 * time.Second

// children are the user's live child jobs, oldest first, and the id of the
// newest dead one ("" if none). It returns errEnding while the last one ends.
func (l *Launcher) children(ctx context.Context, u sandbox.User) (live []*nomad.JobListStub, last string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var jobs []*nomad.JobListStub
	// The ids of those that were dispatched by hand begin with the time.
	for _, begin := range []string{string(u) + "-", strconv.FormatInt(time.Now().Unix(), 10)[:1]} {
		q := (&nomad.QueryOptions{Namespace: l.config.Namespace, Prefix: l.config.children() + begin,
			// The server filters; jobs without that key do not match (seen on Nomad 1.11.3).
			Filter: fmt.Sprintf(`Meta.user == %q`, string(u))}).WithContext(ctx)
		more, _, err := l.nomad.Jobs().ListOptions(&nomad.JobListOptions{Fields: &nomad.JobListFields{Meta: true}}, q)
		if err != nil {
			return nil, "", fmt.Errorf("list the user's jobs: %w", err)
		}
		jobs = append(jobs, more...)
	}
	slices.SortFunc(jobs, oldest)
	jobs = slices.CompactFunc(jobs, func(a, b *nomad.JobListStub) bool { return a.ID == b.ID })
	ending := false
	for _, j := range jobs {
		switch {
		case j.ParentID != l.config.Job || j.Meta["user"] != string(u):
		case j.Stop || j.Status == "dead":
			last = j.ID
			ending = ending || busy(j)
		default:
			live = append(live, j)
		}
	}
	if ending && len(live) == 0 {
		return nil, last, errEnding
	}
	return live, last, nil
}

// oldest orders jobs the same way in every router.
func oldest(a, b *nomad.JobListStub) int {
	return cmp.Or(cmp.Compare(a.CreateIndex, b.CreateIndex), strings.Compare(a.ID, b.ID))
}

// errEnding: the user's last run has not ended yet. Nomad calls its job dead from
// the moment it is stopped, but its task may still be saving; a start now would
// fence it and lose what it is about to save.
var errEnding = errors.New("the last run is still saving")

// busy reports whether a stopped job still has a task that runs.
func busy(j *nomad.JobListStub) bool {
	if j.JobSummary == nil {
		return false
	}
	for _, g := range j.JobSummary.Summary {
		if g.Running+g.Starting > 0 {
			return true
		}
	}
	return false
}

// settled is children, once the user's last run has ended. The caller's right to
// talk to Nomad is given to others meanwhile: a run may take minutes to end.
func (l *Launcher) settled(ctx context.Context, f *Flight) ([]*nomad.JobListStub, string, error) {
	for {
		live, last, err := l.children(ctx, f.User)
		switch {
		case errors.Is(err, errEnding):
			f.report(sandbox.Progress{Phase: sandbox.PhaseQueued, Message: "Waiting until the last run has saved its state"})
		case err != nil && noLeader(err):
			f.report(sandbox.Progress{Phase: sandbox.PhaseQueued, Message: "Waiting for Nomad to elect a leader"})
		default:
			return live, last, err
		}
		l.give()
		pause.For(ctx, endingPause)
		l.calls <- struct{}{} // not take: the caller gives it back whatever happens
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
	}
}

const (
	// endingPause is how often a run that is ending is looked at.
	endingPause = 250 * time.Millisecond
	// longPause is the longest between looks at what takes its time.
	longPause = 2 * time.Second
)

// keepOldest stops all live children of the user but the oldest: servers before
// Nomad 1.11 can dispatch twice with one token.
func (l *Launcher) keepOldest(ctx context.Context, u sandbox.User, dispatched string) (string, error) {
	live, _, err := l.children(ctx, u)
	if err != nil && !errors.Is(err, errEnding) {
		return "", err
	}
	if len(live) == 0 {
		return dispatched, nil // it may have failed already
	}
	return live[0].ID, l.stopOthers(ctx, u, live)
}

// stopOthers stops all but the first.
func (l *Launcher) stopOthers(ctx context.Context, u sandbox.User, live []*nomad.JobListStub) error {
	for _, extra := range live[1:] {
		l.log.Warn("stopping a second start", "user", u, "job", extra.ID)
		if err := l.deregister(ctx, extra.ID); err != nil {
			return err
		}
	}
	return nil
}

func (l *Launcher) deregister(ctx context.Context, job string) error {
	w := (&nomad.WriteOptions{Namespace: l.config.Namespace}).WithContext(ctx)
	if _, _, err := l.nomad.Jobs().Deregister(job, false, w); err != nil {
		return fmt.Errorf("stop job %s: %w", job, err)
	}
	return nil
}
