package egress

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestScriptRefusesWhatIsNotAnAddress(t *testing.T) {
	for _, r := range []Rules{
		{Bridge: `x"; flush ruleset; "`},
		{Bridge: ""},
		{Bridge: "ok", Allow: []string{"1.2.3.4"}},
		{Bridge: "ok", Allow: []string{"host:80"}},
		{Bridge: "ok", Deny: []string{"10.0.0.0/99"}},
		{Bridge: "ok", Deny: []string{"} drop"}},
	} {
		if err := r.Check(); err == nil {
			t.Errorf("%+v was accepted", r)
		}
	}
}

func TestApplyTwiceAndRemove(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("nftables need root")
	}
	r := Rules{Bridge: "ocs-none0", Allow: []string{"10.9.9.1:7072", "[fd00::1]:80"}, Deny: []string{"169.254.0.0/16", "fd00:ec2::/32", "192.0.2.1"}}
	t.Cleanup(func() { r.Remove(context.Background()) })
	for range 2 {
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	list := func() string {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	for _, want := range []string{"169.254.0.0/16", "fd00:ec2::/32", "10.9.9.1 . 7072", `iifname != "ocs-none0" accept`} {
		if !strings.Contains(list(), want) {
			t.Errorf("the rules in force lack %q", want)
		}
	}
	for range 2 {
		if err := r.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(list(), r.table()) {
		t.Error("the tables are still there")
	}
}

func TestIsolatePorts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("interfaces need root")
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	r := Rules{Bridge: "ocs-test1"}
	run("link", "add", r.Bridge, "type", "bridge")
	t.Cleanup(func() { exec.Command("ip", "link", "delete", r.Bridge).Run() })
	run("link", "add", "ocs-p0", "type", "veth", "peer", "name", "ocs-p1")
	t.Cleanup(func() { exec.Command("ip", "link", "delete", "ocs-p0").Run() })
	run("link", "set", "ocs-p0", "master", r.Bridge)
	if err := r.IsolatePorts(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "-d", "link", "show", "ocs-p0").CombinedOutput(); err != nil || !strings.Contains(string(out), "isolated on") {
		t.Errorf("the port is not isolated: %v %s", err, out)
	}
	if err := (Rules{Bridge: "ocs-absent"}).IsolatePorts(); err != nil {
		t.Errorf("no such bridge: %v", err)
	}
}
