package catalog

import (
	"strings"
	"testing"
)

func TestAt(t *testing.T) {
	for ports, want := range map[string]string{
		"": "", "8787=23456": "10.0.0.9:23456", "1=2,8787=8787": "10.0.0.9:8787", "87870=1,8787=2": "10.0.0.9:2", "8787=3,8787=4": "10.0.0.9:3",
		"8788=1": "", "8787": "", "8787=": "", "8787=0": "", "8787=65536": "", "8787=x": "", "8787=${NOMAD_HOST_PORT_telegram}": "", "8787=1:2": "",
	} {
		if got := (Instance{Addr: "10.0.0.9:80", Ports: ports}).At(8787); got != want {
			t.Errorf("%q: %q, want %q", ports, got, want)
		}
	}
	if got := (Instance{Addr: "[fd00::1]:80", Ports: "8787=9"}).At(8787); got != "[fd00::1]:9" {
		t.Errorf("IPv6: %q", got)
	}
	if got := (Instance{Ports: "8787=9"}).At(8787); got != "" {
		t.Errorf("nowhere: %q", got)
	}
}

// What the job says in its service's meta is what routers know.
func TestInstancePorts(t *testing.T) {
	e := entry{}
	e.Service.Address, e.Service.Port = "10.0.0.9", 80
	e.Service.Meta = map[string]string{"user": "alice", "generation": "g1", "ports": "8787=23456"}
	if i, err := e.instance(); err != nil || i.At(8787) != "10.0.0.9:23456" || strings.Contains(i.Addr, "23456") {
		t.Errorf("%+v, %v", i, err)
	}
}
