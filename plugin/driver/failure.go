package driver

import (
	"errors"
	"fmt"

	"github.com/hashicorp/nomad/nomad/structs"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/readiness"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// failure gives a failed start its class and its one sentence.
func failure(err error) *sandbox.Failure {
	var f *sandbox.Failure
	if errors.As(err, &f) {
		return f
	}
	f = &sandbox.Failure{Err: err, Reason: sandbox.ReasonInternal, Message: fmt.Sprintf("The sandbox could not be started: %v.", err)}
	switch {
	case errors.Is(err, snapshot.ErrCorrupt):
		f.Reason, f.Message = sandbox.ReasonStateCorrupt, "The stored state is damaged, so the sandbox was not started and nothing was changed; restore the damaged object in the bucket, or go back to an older snapshot with `sandboxctl restore`, then try again."
	case errors.Is(err, snapshot.ErrNewer):
		f.Reason, f.Message = sandbox.ReasonConfig, "A newer sandbox driver than this node's wrote the stored state, so the sandbox was not started and nothing was changed; install the newer driver on this node, then try again."
	case errors.Is(err, snapshot.ErrTooLarge):
		f.Reason, f.Message = sandbox.ReasonStateTooLarge, "The stored state is larger than the node's limits allow; raise snapshot.max_bytes or snapshot.max_files in the plugin's config."
	case errors.Is(err, snapshot.ErrKey):
		f.Reason, f.Message = sandbox.ReasonConfig, fmt.Sprintf("The stored state is encrypted: %v; add that key to the encryption block of the plugin's config on this node.", err)
	case errors.Is(err, snapshot.ErrFenced):
		f.Reason, f.Message = sandbox.ReasonFenced, "Another start of the same user won; use that one."
	case errors.Is(err, objstore.ErrDenied):
		f.Reason, f.Message = sandbox.ReasonStoreDenied, "The object store refused the plugin's credentials or bucket; check the store block of the plugin's config on this node."
	case errors.Is(err, objstore.ErrUnreachable):
		f.Reason, f.Message = sandbox.ReasonStoreUnreachable, "The object store does not answer, so the state could not be restored; nothing was changed, try again when it is back."
	case errors.Is(err, readiness.ErrNotReady):
		f.Reason, f.Message = sandbox.ReasonNotReady, fmt.Sprintf("The gateway did not get ready: %v.", err)
	}
	return f
}

// trouble says what kept a state from being saved, as the end of a sentence.
func trouble(err error) string {
	switch {
	case errors.Is(err, snapshot.ErrTooLarge):
		return "the state is larger than snapshot.max_bytes or snapshot.max_files of the plugin's config allow"
	case errors.Is(err, objstore.ErrDenied):
		return "the object store refused the plugin's credentials or bucket"
	case errors.Is(err, objstore.ErrUnreachable):
		return "the object store does not answer"
	}
	return err.Error()
}

// nomadError is a failure as Nomad's client takes it: one that a retry may mend
// is recoverable, so that the job's restart block applies.
func nomadError(f *sandbox.Failure) error {
	retry := !f.Reason.Permanent() && f.Reason != sandbox.ReasonFenced
	return structs.NewRecoverableError(errors.New(f.Message), retry)
}

func configFailure(err error) *sandbox.Failure {
	return &sandbox.Failure{Reason: sandbox.ReasonConfig, Message: fmt.Sprintf("The job's config is not valid: %v.", err), Err: err}
}
