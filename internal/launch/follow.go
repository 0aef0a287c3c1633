package launch

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// follow watches a child job until its gateway is in the catalog or it failed.
func (l *Launcher) follow(ctx context.Context, f *Flight, job string) (catalog.Instance, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failures := make(chan error, 1)
	finished := make(chan struct{})
	go func() { // owned by this call: it ends with ctx, and is waited for
		defer close(finished)
		if err := l.watch(ctx, f, job); err != nil {
			failures <- err
			stop()
		}
	}()
	instance, err := l.locator.Wait(ctx, f.User, func(i catalog.Instance) bool { return i.Job == "" || i.Job == job })
	stop()
	<-finished
	if err == nil {
		return instance, nil
	}
	select {
	case failure := <-failures:
		return catalog.Instance{}, failure
	default:
		return catalog.Instance{}, err
	}
}

// lookAgain bounds how long progress may be stale when the event stream is
// silent or broken.
const lookAgain = 2 * time.Second

// watch reports the job's progress, and returns its failure. Nomad's event
// stream says when to look; what is reported is read from the job itself, so a
// gap in the stream loses nothing.
func (l *Launcher) watch(ctx context.Context, f *Flight, job string) error {
	events := l.stream(ctx, job)
	var waiting time.Time // since when no node has room
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-events:
			if !ok {
				events = nil // the timer goes on looking
			}
		case <-timer.C:
		}
		timer.Reset(lookAgain)
		p, err := l.look(ctx, job)
		if err != nil {
			if ctx.Err() == nil {
				l.log.Debug("look at a start", "job", job, "error", err)
			}
			continue
		}
		if p.Phase != sandbox.PhaseFailed {
			f.report(p)
		}
		switch {
		case p.Phase == sandbox.PhaseFailed:
			return &sandbox.Failure{Reason: p.Reason, Message: p.Message}
		case p.Reason != sandbox.ReasonNoCapacity:
			waiting = time.Time{}
		case waiting.IsZero():
			waiting = time.Now()
		case time.Since(waiting) > l.config.CapacityWait:
			return l.withdraw(ctx, job, p.Message)
		}
	}
}

// withdraw stops a job for which no node has room.
func (l *Launcher) withdraw(ctx context.Context, job, why string) error {
	if err := l.deregister(ctx, job); err != nil {
		return err
	}
	return &sandbox.Failure{Reason: sandbox.ReasonNoCapacity, Message: why}
}

// stream yields whenever something of the job changed. It is closed when the
// stream ends.
func (l *Launcher) stream(ctx context.Context, job string) <-chan struct{} {
	out := make(chan struct{}, 1)
	q := &nomad.QueryOptions{Namespace: l.config.Namespace}
	topics := map[nomad.Topic][]string{nomad.TopicAllocation: {job}, nomad.TopicEvaluation: {job}, nomad.TopicJob: {job}}
	in, err := l.nomad.EventStream().Stream(ctx, topics, 0, q)
	if err != nil {
		l.log.Debug("no event stream", "error", err)
		close(out)
		return out
	}
	go func() { // ends with ctx, which ends the stream
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-in:
				if !ok || e.Err != nil {
					return
				}
				if e.IsHeartbeat() {
					continue
				}
				select {
				case out <- struct{}{}:
				default: // a look is due already
				}
			}
		}
	}()
	return out
}

// look reads how far the job is.
func (l *Launcher) look(ctx context.Context, job string) (sandbox.Progress, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q := (&nomad.QueryOptions{Namespace: l.config.Namespace}).WithContext(ctx)
	allocs, _, err := l.nomad.Jobs().Allocations(job, true, q)
	if err != nil {
		return sandbox.Progress{}, err
	}
	if len(allocs) > 0 {
		sort.Slice(allocs, func(i, j int) bool { return allocs[i].CreateIndex > allocs[j].CreateIndex })
		return ofAllocation(allocs[0]), nil
	}
	evals, _, err := l.nomad.Jobs().Evaluations(job, q)
	if err != nil {
		return sandbox.Progress{}, err
	}
	for _, e := range evals {
		if len(e.FailedTGAllocs) > 0 {
			return sandbox.Progress{Phase: sandbox.PhaseQueued, Reason: sandbox.ReasonNoCapacity,
				Message: "No node has room for this sandbox: " + shortage(e.FailedTGAllocs) + ". Add a node or stop other sandboxes, then try again."}, nil
		}
	}
	info, _, err := l.nomad.Jobs().Info(job, q)
	switch {
	case err != nil && strings.Contains(err.Error(), "404"):
		return sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonInternal, Message: "The start was withdrawn; try again."}, nil
	case err != nil:
		return sandbox.Progress{}, err
	case info.Stop != nil && *info.Stop:
		return sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonInternal, Message: "The start was stopped by somebody; try again."}, nil
	}
	return sandbox.Progress{Phase: sandbox.PhaseQueued, Message: "Waiting for a node"}, nil
}

// ofAllocation is the progress that an allocation's task events tell.
func ofAllocation(a *nomad.AllocationListStub) sandbox.Progress {
	p := sandbox.Progress{Phase: sandbox.PhasePlaced, Message: "Placed on node " + a.NodeName}
	var failed *sandbox.Progress
	for _, ts := range a.TaskStates {
		for _, e := range ts.Events {
			q, ok := sandbox.FromAnnotations(e.Details, e.DisplayMessage)
			switch {
			case ok && q.Phase == sandbox.PhaseFailed:
				failed = &q
			case ok:
				p, failed = q, nil // a later try
			case failed == nil && (e.FailsTask || e.Type == nomad.TaskFailedValidation || e.Type == nomad.TaskSetupFailure || e.Type == nomad.TaskDriverFailure):
				failed = &sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonInternal, Message: e.DisplayMessage}
			}
		}
	}
	switch {
	case a.ClientStatus == nomad.AllocClientStatusFailed || a.ClientStatus == nomad.AllocClientStatusLost:
		if failed == nil {
			failed = &sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonInternal, Message: "The sandbox ended: " + a.ClientDescription + "."}
		}
		return *failed
	case a.ClientStatus == nomad.AllocClientStatusComplete || a.DesiredStatus != nomad.AllocDesiredStatusRun:
		return sandbox.Progress{Phase: sandbox.PhaseFailed, Reason: sandbox.ReasonInternal, Message: "The sandbox was stopped while it was starting; try again."}
	case failed != nil:
		// Nomad will try again on the same node.
		return sandbox.Progress{Phase: p.Phase, Message: "Trying again: " + failed.Message}
	}
	return p
}

// shortage says what the nodes lack.
func shortage(groups map[string]*nomad.AllocationMetric) string {
	lacks := map[string]int{}
	nodes := 0
	for _, m := range groups {
		nodes += m.NodesEvaluated
		for what, n := range m.DimensionExhausted {
			lacks[what] += n
		}
		for what, n := range m.ConstraintFiltered {
			lacks["constraint "+what] += n
		}
	}
	if nodes == 0 && len(lacks) == 0 {
		return "no node is ready"
	}
	var out []string
	for what, n := range lacks {
		out = append(out, fmt.Sprintf("%s on %d", what, n))
	}
	sort.Strings(out)
	if len(out) == 0 {
		return fmt.Sprintf("none of %d nodes fits", nodes)
	}
	return "short of " + strings.Join(out, ", ")
}
