package devcluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWords(t *testing.T) {
	const line = `-A POSTROUTING -s 172.26.96.5/32 -m comment --comment "name: \"nomad\" id: \"7317\"" -j CNI-f611` + "\n"
	want := []string{"-A", "POSTROUTING", "-s", "172.26.96.5/32", "-m", "comment", "--comment", `name: "nomad" id: "7317"`, "-j", "CNI-f611"}
	if d := cmp.Diff(want, words(line)); d != "" {
		t.Error(d)
	}
}

func TestOfOneAlloc(t *testing.T) {
	for chain, want := range map[string]bool{
		"CNI-2aa924e6f299d591c9a6ac54": true, "CNI-DN-2aa924e6f299d591c9a6a": true,
		"CNI-FORWARD": false, "CNI-HOSTPORT-DNAT": false, "CNI-HOSTPORT-SETMARK": false, "ACCEPT": false, "NOMAD-ADMIN": false,
	} {
		if got := ofOneAlloc(chain); got != want {
			t.Errorf("%s: %v, want %v", chain, got, want)
		}
	}
}
