package syntax

import "testing"

func TestToken(t *testing.T) {
	for s, want := range map[string]bool{"X-Forwarded-For": true, "a": true, "!#$%&'*+-.^_`|~09azAZ": true,
		"": false, "a b": false, "a:": false, "a\n": false, "\x00": false, "a\x7f": false, "é": false, "(": false, "\"": false} {
		if got := Token.Only(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
