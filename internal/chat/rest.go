package chat

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Quiet is whether a gateway can be frozen or stopped without cutting anything off.
type Quiet struct {
	// Busy says what it is busy with; "" if with nothing.
	Busy string
	// RetryAfter is when a busy gateway asks to be asked again; zero if it does not say.
	RetryAfter time.Duration

	suspension string
}

// suspendAs names the router among those who may suspend a gateway.
const suspendAs = "sandbox-router"

// Quiet asks the gateway for a rest (gateway.suspend.prepare). One that is not busy
// takes no new work from then on, for two minutes or until Resume.
func (c *Client) Quiet() (Quiet, error) {
	raw, err := c.call("gateway.suspend.prepare", map[string]any{"requestId": suspendAs})
	if err != nil {
		return Quiet{}, err
	}
	var in struct {
		Status       string `json:"status"`
		SuspensionID string `json:"suspensionId"`
		RetryAfterMs int64  `json:"retryAfterMs"`
		ActiveCount  int    `json:"activeCount"`
		Blockers     []struct {
			Message string `json:"message"`
		} `json:"blockers"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return Quiet{}, fmt.Errorf("the gateway's answer to gateway.suspend.prepare: %w", err)
	}
	if in.Status == "ready" {
		return Quiet{suspension: in.SuspensionID}, nil
	}
	var with []string
	for _, b := range in.Blockers[:min(len(in.Blockers), maxBlockers)] {
		with = append(with, Text(b.Message))
	}
	busy := strings.Join(with, ", ")
	if busy == "" {
		busy = fmt.Sprintf("%d activities", in.ActiveCount)
	}
	retry := min(max(in.RetryAfterMs, 0), maxRetry.Milliseconds())
	return Quiet{Busy: busy, RetryAfter: time.Duration(retry) * time.Millisecond}, nil
}

// Resume ends a rest.
func (c *Client) Resume(q Quiet) error {
	if q.suspension == "" {
		return nil
	}
	_, err := c.call("gateway.suspend.resume", map[string]any{"suspensionId": q.suspension})
	return err
}

// How a gateway's jobs are read: pages of so many, and no more than so many pages.
const (
	duePage  = 200
	duePages = 20
)

// Due is when the next of the jobs is due that a person or an agent has
// scheduled; zero if none is. The gateway's own chores, its heartbeat among them,
// do not count: it catches up with them when it runs anyway.
func (c *Client) Due() (time.Time, error) {
	var due time.Time
	offset, latest := 0, time.Now().Add(maxAhead).UnixMilli()
	for range duePages {
		raw, err := c.call("cron.list", map[string]any{"compact": true, "limit": duePage, "offset": offset})
		if err != nil {
			return due, err
		}
		var in struct {
			Jobs []struct {
				Enabled     bool   `json:"enabled"`
				Declaration string `json:"declarationKey"` // of jobs that the gateway keeps itself
				NextRunAtMs int64  `json:"nextRunAtMs"`
			} `json:"jobs"`
			HasMore    bool `json:"hasMore"`
			NextOffset int  `json:"nextOffset"`
		}
		if err := json.Unmarshal(raw, &in); err != nil {
			return due, fmt.Errorf("the gateway's answer to cron.list: %w", err)
		}
		for _, j := range in.Jobs {
			if at := time.UnixMilli(min(j.NextRunAtMs, latest)); j.Enabled && j.Declaration == "" && j.NextRunAtMs > 0 && (due.IsZero() || at.Before(due)) {
				due = at
			}
		}
		if !in.HasMore || in.NextOffset <= offset {
			break
		}
		offset = in.NextOffset
	}
	return due, nil
}
