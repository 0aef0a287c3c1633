package devcluster

import (
	"context"
	"errors"
	"fmt"

	nomad "github.com/hashicorp/nomad/api"
)

// Hurry kills every task at once, while Down waits for them to end by themselves.
// A running turn is lost; the driver still saves what each sandbox has on disk,
// and Nomad still takes its networks down.
func (s *Stack) Hurry(ctx context.Context) error {
	q := (&nomad.QueryOptions{}).WithContext(ctx)
	allocs, _, err := s.Nomad.Client().Allocations().List(q)
	if err != nil {
		return fmt.Errorf("kill the tasks: %w", err)
	}
	var errs []error
	for _, a := range allocs {
		for task, state := range a.TaskStates {
			if state.State != "running" {
				continue
			}
			if err := s.Nomad.Client().Allocations().Signal(&nomad.Allocation{ID: a.ID}, q, task, "SIGKILL"); err != nil {
				errs = append(errs, fmt.Errorf("kill task %s of %s: %w", task, a.JobID, err))
			}
		}
	}
	return errors.Join(errs...)
}
