package sandbox

import (
	"errors"
	"strings"
	"testing"
)

func TestParseUser(t *testing.T) {
	for _, ok := range []string{"a", "0", "alice", "a-b", "a--b", strings.Repeat("x", 40)} {
		if u, err := ParseUser(ok); err != nil || string(u) != ok {
			t.Errorf("ParseUser(%q) = %q, %v", ok, u, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a b", "ä", "a\x00", "a\n", strings.Repeat("x", 41)} {
		if _, err := ParseUser(bad); !errors.Is(err, ErrBadUser) {
			t.Errorf("ParseUser(%q) = %v, want ErrBadUser", bad, err)
		}
	}
}

func TestProgressThroughNomad(t *testing.T) {
	for _, p := range []Progress{
		{Phase: PhaseRestoring, Done: 34, Total: 118, Message: "m"},
		{Phase: PhaseFailed, Reason: ReasonStateCorrupt, Message: "m"},
		{Phase: PhaseReady, Message: "m"},
	} {
		if got, ok := FromAnnotations(p.Annotations(), "m"); !ok || got != p {
			t.Errorf("FromAnnotations = %+v %v, want %+v", got, ok, p)
		}
	}
	if _, ok := FromAnnotations(map[string]string{"other": "x"}, "m"); ok {
		t.Error("an event of somebody else was taken for progress")
	}
}
