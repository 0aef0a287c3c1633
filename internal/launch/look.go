package launch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/sandbox"
)

// sight is what is known of a job at some moment.
type sight struct {
	progress sandbox.Progress
	alloc    *nomad.Allocation // nil unless its task may run
	begins   bool              // it has not run yet, or not since its task was started again
}

// look reads how far the job is.
func (l *Launcher) look(ctx context.Context, job string) (sight, error) {
	if err := l.take(ctx); err != nil {
		return sight{}, err
	}
	defer l.give()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q := (&nomad.QueryOptions{Namespace: l.config.Namespace}).WithContext(ctx)
	allocs, _, err := l.nomad.Jobs().Allocations(job, true, q)
	if err != nil {
		return sight{}, err
	}
	if len(allocs) == 0 {
		p, err := l.unplaced(job, q)
		return sight{progress: p, begins: true}, err
	}
	newest := slices.MaxFunc(allocs, func(a, b *nomad.AllocationListStub) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
	if newest.ClientStatus != nomad.AllocClientStatusRunning {
		return sight{progress: ofAllocation(newest), begins: newest.ClientStatus == nomad.AllocClientStatusPending}, nil
	}
	// The outline lacks the address.
	alloc, _, err := l.nomad.Allocations().Info(newest.ID, q)
	if err != nil {
		return sight{}, fmt.Errorf("read allocation %s: %w", newest.ID, err)
	}
	return ofNews(alloc), nil
}

// ofNews is what an allocation says of itself.
func ofNews(a *nomad.Allocation) sight {
	return sight{progress: ofAllocation(a.Stub()), alloc: a, begins: a.ClientStatus == nomad.AllocClientStatusPending}
}

// startedSince tells whether the task was started again, or in another allocation,
// since a sight of the same job: between two looks nobody may have seen it begin.
func (s *sight) startedSince(was *sight) bool {
	if s.alloc == nil || was.alloc == nil {
		return false
	}
	return s.alloc.ID != was.alloc.ID || restarts(s.alloc) > restarts(was.alloc)
}

// restarts is how often the client started tasks of the allocation again.
func restarts(a *nomad.Allocation) (n uint64) {
	for _, t := range a.TaskStates {
		n += t.Restarts
	}
	return n
}

// unplaced is how far a job without an allocation is.
func (l *Launcher) unplaced(job string, q *nomad.QueryOptions) (sandbox.Progress, error) {
	evals, _, err := l.nomad.Jobs().Evaluations(job, q)
	if err != nil {
		return sandbox.Progress{}, err
	}
	for _, e := range evals {
		if len(e.FailedTGAllocs) > 0 {
			return ofEvaluation(e), nil
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

// ofEvaluation is the progress of a job that could not be placed.
func ofEvaluation(e *nomad.Evaluation) sandbox.Progress {
	return sandbox.Progress{Phase: sandbox.PhaseQueued, Reason: sandbox.ReasonNoCapacity,
		Message: "No node has room for this sandbox: " + shortage(e.FailedTGAllocs) + ". Add a node or stop other sandboxes, then try again."}
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
