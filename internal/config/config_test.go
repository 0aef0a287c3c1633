package config

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The example file says the defaults, so it can not lie about them.
func TestExampleIsTheDefaults(t *testing.T) {
	text, err := os.ReadFile("../../docs/router.example.hcl")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text, "router.example.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Tokens) != 1 || got.Tokens[0].User != "alice" {
		t.Errorf("tokens = %v, want the example's one", got.Tokens)
	}
	got.Tokens = nil
	if d := cmp.Diff(NewConfig(), got); d != "" {
		t.Errorf("the example differs from the defaults:\n%s", d)
	}
}

func TestProblemsAreNamed(t *testing.T) {
	const who = "identity \"dev\" {}\n"
	for name, c := range map[string]struct{ text, mention string }{
		"unknown key":    {who + "lisen = \"x\"", "lisen"},
		"line":           {who + "\n\nlisten = 1 1", "r.hcl line 4"},
		"duration":       {who + `drain_delay = "soon"`, "drain_delay"},
		"negative":       {who + `wake { hold_timeout = "-1s" }`, "wake.hold_timeout"},
		"nobody":         {``, "identity"},
		"dev in public":  {who + `listen = "0.0.0.0:80"`, "loopback"},
		"bad token":      {`identity "token" { token "alice" { sha256 = "x" } }`, "alice"},
		"bad user":       {`identity "token" { token "A" { sha256 = "x" } }`, "r.hcl line 1"},
		"its line":       {who + "wake {\n  hold_timeout = \"x\"\n}", "r.hcl line 3"},
		"unknown nested": {who + "wake {\n hold = \"1s\"\n}", "r.hcl line 3"},
		"unknown in dev": {`identity "dev" { usr = "x" }`, "usr"},
		"unknown token":  {`identity "token" { token "alice" { secret = "x" } }`, "secret"},
		"no time":        {who + `wake { start_timeout = "0s" }`, "more than 0"},
		"head timeout":   {who + `upstream { head_timeout = "soon" }`, "head_timeout"},
		"too idle":       {who + `upstream { idle_timeout = "5s" }`, "idle_timeout"},
		"no job":         {who + `nomad { job = "" }`, "nomad.job"},
		"two problems":   {who + "scheme = \"x\"\nlisten = \"y\"", "r.hcl line 3"},
		"unknown method": {`identity "magic" {}`, "magic"},
		"domain":         {who + `domain = "*.example.com"`, "domain"},
		"scheme":         {who + `scheme = "ftp"`, "scheme"},
		"shards":         {who + `consul { shards = 129 }`, "1 to 128"},
		"no shards":      {who + `consul { shards = 0 }`, "shards"},
		"a limit":        {who + `wake { max_starting = -1 }`, "wake.max_starting"},
		"client":         {who + `upstream { forwarded_client = "127.0.0.1" }`, "forwarded_client"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.text), "r.hcl")
			if err == nil || !strings.Contains(err.Error(), c.mention) {
				t.Errorf("err = %v, want a mention of %q", err, c.mention)
			}
		})
	}
	if _, err := Load("/no/such/file"); err == nil {
		t.Error("a missing file was accepted")
	}
}
