// Package readiness waits until a process serves: an HTTP probe that knows
// whether the process still lives, so that "it exited" and "it is slow" are
// different answers.
package readiness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// What Wait returns besides nil.
var (
	// ErrExited: the process ended before it was ready.
	ErrExited = errors.New("exited before it was ready")
	// ErrNotReady: the time is over. The error's text says what the last probe saw.
	ErrNotReady = errors.New("not ready in time")
)

// maxBody is how much of an answer is looked at.
const maxBody = 64 << 10

// Probe says what ready means.
type Probe struct {
	// URL is asked with GET. Redirects are not followed.
	URL string
	// Header is sent with each request.
	Header http.Header
	// Statuses are the accepted status codes; 200 if empty.
	Statuses []int
	// Contains must be in the body's first 64 KiB; empty accepts any body. A
	// status alone proves little: some servers answer every path with 200.
	Contains string
	// Interval is the pause after the first probe; it doubles up to MaxInterval.
	Interval, MaxInterval time.Duration
	// AttemptTimeout bounds one probe, Timeout all of them.
	AttemptTimeout, Timeout time.Duration
}

// Wait probes until the process serves (nil), exited is closed (ErrExited), the
// probe's timeout is over (ErrNotReady), or ctx ends (its error).
func (p Probe) Wait(ctx context.Context, exited <-chan struct{}) error {
	deadline, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	// A client of its own: no connection may outlive the wait, and no proxy of
	// the environment is for a sandbox's port.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	pause := p.Interval
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := errors.New("no probe was made")
	for {
		select {
		case <-exited:
			return ErrExited
		case <-deadline.Done():
			if err := ctx.Err(); err != nil {
				return err
			}
			return fmt.Errorf("%w (%s): %w", ErrNotReady, p.Timeout, last)
		case <-timer.C:
		}
		err := p.once(deadline, client)
		if err == nil {
			return nil
		}
		if deadline.Err() == nil { // what the end of the wait cut off tells nothing
			last = err
		}
		timer.Reset(pause)
		pause = min(2*pause, p.MaxInterval)
	}
}

func (p Probe) once(ctx context.Context, client *http.Client) error {
	ctx, cancel := context.WithTimeout(ctx, p.AttemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
	if err != nil {
		return err
	}
	if p.Header != nil {
		req.Header = p.Header.Clone()
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	want := p.Statuses
	if len(want) == 0 {
		want = []int{http.StatusOK}
	}
	if !slices.Contains(want, resp.StatusCode) {
		return fmt.Errorf("%s answers %s", req.URL.Path, resp.Status)
	}
	if !bytes.Contains(body, []byte(p.Contains)) {
		return fmt.Errorf("%s answers %s, but without %q", req.URL.Path, resp.Status, p.Contains)
	}
	return nil
}
