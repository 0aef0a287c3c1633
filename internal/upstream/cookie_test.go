package upstream

import (
	"slices"
	"testing"
)

func TestHostOnly(t *testing.T) {
	for in, want := range map[string]string{
		"a=1":                             "a=1",
		"a=1; Path=/; HttpOnly":           "a=1; Path=/; HttpOnly",
		"a=1; Domain=claw.test; Path=/":   "a=1; Path=/",
		"a=1; dOmAiN = .claw.test;Secure": "a=1;Secure",
		"a=1;Domain":                      "a=1",
		"a=1; Domain=x; domain=claw.test; Max-Age=1": "a=1; Max-Age=1",
		"domain=1; Path=/":                           "domain=1; Path=/", // its name
		"":                                           "",
	} {
		given := []string{in, "b=2"}
		if got := HostOnly(given); !slices.Equal(got, []string{want, "b=2"}) || given[0] != in {
			t.Errorf("%q became %q (given: %q), want %q", in, got, given, want)
		}
	}
}
