package audit

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/identity"
)

// logged is a log whose lines are read, at a time that stands.
func logged(t *testing.T) (*Log, *bytes.Buffer, func(time.Duration)) {
	t.Helper()
	var out bytes.Buffer
	l := New(slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Now()
	l.now = func() time.Time { return now }
	return l, &out, func(d time.Duration) { now = now.Add(d) }
}

func lines(out *bytes.Buffer, with string) int { return strings.Count(out.String(), with) }

// A flood is counted, not written: neither that of one address nor that of many.
func TestFlood(t *testing.T) {
	l, out, later := logged(t)
	r := httptest.NewRequest("GET", "http://bob.claw.test/?token=secret", nil)
	r.Header.Set("X-Request-Id", "req-1")
	r.Header.Set("Authorization", "Bearer secret")
	r.RemoteAddr = "203.0.113.9:1"
	for range 1000 {
		l.Refused("denied", r, "caller", "alice", "user", "bob")
	}
	if n := lines(out, "act=denied"); n != refusedBurst {
		t.Errorf("%d lines of 1000 refusals of one address, want %d", n, refusedBurst)
	}
	for _, want := range []string{"msg=audit", "caller=alice", "user=bob", "from=203.0.113.9:1", "host=bob.claw.test", "request=req-1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %s:\n%.300s", want, out)
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Error("the log has a credential")
	}
	l.Note("login", r, "user", "alice")
	if lines(out, "act=login") != 1 || lines(out, fmt.Sprintf("unlogged=%d", 1000-refusedBurst)) != 1 {
		t.Errorf("a flood of refusals hides a login, or how large it was:\n%s", out)
	}
	out.Reset()
	for range 2 * notedBurst {
		l.Note("logout", r)
	}
	if n := lines(out, "act=logout"); n != notedBurst-1 {
		t.Errorf("%d lines of a loop, want %d", n, notedBurst-1)
	}
	out.Reset()
	later(time.Minute)
	r.Host = strings.Repeat("x", 60_000)
	if l.Refused("denied", r); out.Len() > 1000 {
		t.Errorf("one line of %d bytes", out.Len())
	}
	if want := fmt.Sprintf("unlogged=%d", notedBurst+1); !strings.Contains(out.String(), want) {
		t.Errorf("%s, want it to tell %s", out, want)
	}
	out.Reset()
	for n := range 1000 {
		r.RemoteAddr = fmt.Sprintf("198.51.%d.%d:1", n/250, n%250)
		l.Refused("denied", r)
	}
	if n := lines(out, "act=denied"); n > totalBurst || n < totalBurst-1 {
		t.Errorf("%d lines of 1000 addresses, want %d", n, totalBurst)
	}
}

func TestVisit(t *testing.T) {
	l, out, later := logged(t)
	r := httptest.NewRequest("GET", "/", nil)
	member, admin := identity.Caller{User: "alice", Role: identity.RoleUser}, identity.Caller{User: "ops", Role: identity.RoleAdmin}
	entered := identity.Caller{User: "bob", Role: identity.RoleUser, By: "ops"} // at bob's host
	for range 100 {
		l.Visit(r, member, "team-x")
		l.Visit(r, member, "alice") // her own
		l.Visit(r, admin, "bob")
		l.Visit(r, entered, "bob")
		l.Visit(r, identity.Caller{User: "me", Anyone: true}, "bob")
		l.Start(r, member, "team-x")
	}
	if lines(out, "msg=audit") != 3 || lines(out, "act=visit") != 2 || lines(out, "user=team-x by=alice as=member") != 2 || lines(out, "user=bob by=ops as=admin") != 1 {
		t.Errorf("the log:\n%s", out)
	}
	later(startEvery)
	l.Start(r, member, "team-x")
	l.Visit(r, member, "team-x")
	if lines(out, "act=start") != 2 || lines(out, "act=visit") != 2 {
		t.Errorf("a minute later:\n%s", out)
	}
	later(visitEvery)
	l.Visit(r, member, "team-x")
	if lines(out, "act=visit") != 3 {
		t.Errorf("an hour later:\n%s", out)
	}
}
