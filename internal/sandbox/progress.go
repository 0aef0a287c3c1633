package sandbox

import (
	"fmt"
	"strconv"
	"time"
)

// Phase is a step of a sandbox's start, in the order in which they come.
type Phase string

// The phases. The router reports Queued and Placed from what Nomad says; the
// driver reports the others as task events.
const (
	PhaseQueued    Phase = "queued"    // dispatched, no node chosen yet
	PhasePlaced    Phase = "placed"    // a node was chosen
	PhaseClaiming  Phase = "claiming"  // the driver takes the user's state
	PhaseRestoring Phase = "restoring" // bytes come from the object store
	PhaseStarting  Phase = "starting"  // the gateway's process runs
	PhaseReady     Phase = "ready"     // the gateway serves
	PhaseFailed    Phase = "failed"    // see Reason
)

// Reason is the class of a failed start, for machines; Progress.Message says
// the same to people.
type Reason string

// The reasons. Permanent tells which of them a retry cannot mend.
const (
	ReasonNoCapacity       Reason = "no_capacity"       // no node has room
	ReasonStoreUnreachable Reason = "store_unreachable" // the object store does not answer
	ReasonStoreDenied      Reason = "store_denied"      // the object store refuses the credentials
	ReasonStateCorrupt     Reason = "state_corrupt"     // a stored object fails verification
	ReasonStateTooLarge    Reason = "state_too_large"   // a limit of the snapshot settings is passed
	ReasonUnfinished       Reason = "unfinished"        // the last run, on another node, did not save at its end
	ReasonFenced           Reason = "fenced"            // a newer run of the user exists
	ReasonExited           Reason = "exited"            // the gateway exited before it was ready
	ReasonNotReady         Reason = "not_ready"         // the gateway was not ready in time
	ReasonConfig           Reason = "config"            // the job or the plugin is configured wrongly
	ReasonLimit            Reason = "limit"             // the operator's limit of sandboxes is reached
	ReasonQueueFull        Reason = "queue_full"        // too many starts wait in line already
	ReasonTooOften         Reason = "too_often"         // the user's starts of this hour are used up
	ReasonUnanswered       Reason = "unanswered"        // it runs, and its gateway takes no connections
	ReasonInternal         Reason = "internal"          // anything else
)

// Permanent reports whether starting again, with nothing changed by an
// operator, would fail in the same way.
func (r Reason) Permanent() bool {
	switch r {
	case ReasonStoreDenied, ReasonStateCorrupt, ReasonStateTooLarge, ReasonConfig:
		return true
	}
	return false
}

// Progress is how far a start is.
type Progress struct {
	Phase Phase `json:"phase"`
	Done  int64 `json:"done,omitempty"`  // bytes restored so far
	Total int64 `json:"total,omitempty"` // bytes to restore
	// Position is the place in the router's line of starts; 1 is next, 0 is not in line.
	Position int    `json:"position,omitempty"`
	Reason   Reason `json:"reason,omitempty"`
	Message  string `json:"message,omitempty"` // one sentence for a person
}

// The keys of a task event's annotations (Nomad shows them as an event's
// details). They are how the driver tells the router, through Nomad.
const (
	annotationPhase  = "sandbox.phase"
	annotationDone   = "sandbox.done"
	annotationTotal  = "sandbox.total"
	annotationReason = "sandbox.reason"
)

// Annotations is p as the annotations of a Nomad task event.
func (p Progress) Annotations() map[string]string {
	m := map[string]string{annotationPhase: string(p.Phase)}
	if p.Total > 0 {
		m[annotationDone] = strconv.FormatInt(p.Done, 10)
		m[annotationTotal] = strconv.FormatInt(p.Total, 10)
	}
	if p.Reason != "" {
		m[annotationReason] = string(p.Reason)
	}
	return m
}

// FromAnnotations is the reverse of Annotations; ok is false when the event is
// not one of the driver's progress events.
func FromAnnotations(m map[string]string, message string) (p Progress, ok bool) {
	p.Phase, p.Reason, p.Message = Phase(m[annotationPhase]), Reason(m[annotationReason]), message
	if p.Phase == "" {
		return Progress{}, false
	}
	p.Done, _ = strconv.ParseInt(m[annotationDone], 10, 64)
	p.Total, _ = strconv.ParseInt(m[annotationTotal], 10, 64)
	return p, true
}

// Failure is a start that failed, as an error.
type Failure struct {
	Reason  Reason
	Message string // one sentence for a person: the cause and the next step
	Err     error  // what lies beneath, for logs; may be nil
	// RetryAfter is when another try makes sense; zero leaves it to the reason.
	RetryAfter time.Duration
}

func (f *Failure) Error() string {
	if f.Err != nil {
		return fmt.Sprintf("%s (%v)", f.Message, f.Err)
	}
	return f.Message
}

func (f *Failure) Unwrap() error { return f.Err }
