package upstream

import (
	"errors"
	"fmt"
)

// RequestError is a request that may not be passed on; nothing of it was sent.
type RequestError struct {
	Status int // what the client is to get: 400 or 405
	Reason string
}

func (e *RequestError) Error() string { return "the request was refused: " + e.Reason }

// BodyError says that the client's body broke off or is malformed: a 400, if the
// client still listens.
type BodyError struct{ Err error }

func (e *BodyError) Error() string { return fmt.Sprintf("read the request's body: %v", e.Err) }

// Unwrap is the error of the body's reader.
func (e *BodyError) Unwrap() error { return e.Err }

// SilentError is a gateway that ended the connection without a byte of an answer, to
// a request that may be sent again (RFC 9110 section 9.2.2).
type SilentError struct{ Err error }

func (e *SilentError) Error() string {
	return "the gateway ended the connection without an answer: " + e.Err.Error()
}

// Unwrap is the connection's error.
func (e *SilentError) Unwrap() error { return e.Err }

var (
	// ErrGone says that the request's context ended: as a rule the client is gone.
	ErrGone = errors.New("the request ended before its answer came")
	// ErrHeadTooLarge says that a gateway's head is larger than Options.MaxHead.
	ErrHeadTooLarge = errors.New("the head of the gateway's answer is too large")
	// ErrMalformed says that a gateway's answer is not HTTP/1.x as it may be here.
	ErrMalformed = errors.New("the gateway's answer is malformed")
)

// errNotWanted ends the sending of a body that the gateway's answer made needless.
var errNotWanted = errors.New("the answer came before the body")
