package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

const recorded = `{"Time":"2026-01-01T00:00:00Z","Action":"start","Package":"openclaw-sandbox/a"}
{"Time":"2026-01-01T00:00:00Z","Action":"run","Package":"openclaw-sandbox/a","Test":"TestSlow"}
{"Time":"2026-01-01T00:00:01Z","Action":"output","Package":"openclaw-sandbox/a","Test":"TestSlow","Output":"openclaw-start user=alice\n"}
{"Time":"2026-01-01T00:00:02Z","Action":"pass","Package":"openclaw-sandbox/a","Test":"TestSlow","Elapsed":2.5}
{"Time":"2026-01-01T00:00:02Z","Action":"run","Package":"openclaw-sandbox/a","Test":"TestBad"}
{"Time":"2026-01-01T00:00:02Z","Action":"run","Package":"openclaw-sandbox/a","Test":"TestBad/sub"}
{"Time":"2026-01-01T00:00:02Z","Action":"output","Package":"openclaw-sandbox/a","Test":"TestBad/sub","Output":"    a_test.go:9: the reason\n"}
{"Time":"2026-01-01T00:00:02Z","Action":"fail","Package":"openclaw-sandbox/a","Test":"TestBad/sub","Elapsed":0}
{"Time":"2026-01-01T00:00:02Z","Action":"fail","Package":"openclaw-sandbox/a","Test":"TestBad","Elapsed":0}
{"Time":"2026-01-01T00:00:02Z","Action":"skip","Package":"openclaw-sandbox/a","Test":"TestLater","Elapsed":0}
{"Time":"2026-01-01T00:00:02Z","Action":"fail","Package":"openclaw-sandbox/a","Elapsed":2.6}
`

const broken = `{"ImportPath":"openclaw-sandbox/b","Action":"build-output","Output":"b/b.go:3:1: syntax error\n"}
{"ImportPath":"openclaw-sandbox/b","Action":"build-fail"}
{"Time":"2026-01-01T00:00:00Z","Action":"start","Package":"openclaw-sandbox/b"}
{"Time":"2026-01-01T00:00:00Z","Action":"output","Package":"openclaw-sandbox/b","Output":"FAIL\topenclaw-sandbox/b [build failed]\n"}
{"Time":"2026-01-01T00:00:00Z","Action":"fail","Package":"openclaw-sandbox/b","Elapsed":0,"FailedBuild":"openclaw-sandbox/b"}
`

const timeout = `{"Time":"2026-01-01T00:00:00Z","Action":"run","Package":"openclaw-sandbox/c","Test":"TestHangs"}
{"Time":"2026-01-01T00:00:01Z","Action":"output","Package":"openclaw-sandbox/c","Test":"TestHangs","Output":"panic: test timed out after 1m0s\n"}
{"Time":"2026-01-01T00:00:01Z","Action":"fail","Package":"openclaw-sandbox/c","Elapsed":60}
`

const good = `{"Action":"pass","Package":"openclaw-sandbox/d","Test":"TestGood","Elapsed":0.1}
{"Action":"pass","Package":"openclaw-sandbox/d","Elapsed":0.1}
`

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name, in string
		code     int
		want     []string
		not      string
	}{
		{"failed test", recorded, 1, []string{"pass TestSlow (a, 2.5s)", "a_test.go:9: the reason", "fail TestBad (a, 0s)", "fail a (2.6s)",
			"starts of the real gateway: 1\n", "\n1 passed, 1 failed, 1 skipped\n"}, "alice"},
		{"failed build", broken, 1, []string{"b.go:3:1: syntax error", "[build failed]", "fail b", "\n0 passed, 1 failed, 0 skipped\n"}, "pass"},
		{"timeout", timeout, 1, []string{"panic: test timed out", "\n0 passed, 1 failed, 0 skipped\n"}, "pass"},
		{"passed", good, 0, []string{"pass d (100ms)", "\n1 passed, 0 failed, 0 skipped\n"}, "pass TestGood"},
		{"no event", "go: no such module\n", 1, []string{"go: no such module\n", "\n0 passed, 0 failed, 0 skipped\n"}, "pass "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			code, err := run(nil, strings.NewReader(c.in), &out)
			if err != nil || code != c.code {
				t.Errorf("exit code %d, %v; want %d", code, err, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the report lacks %q:\n%s", want, out.String())
				}
			}
			if body, _, _ := strings.Cut(out.String(), "slowest tests:"); strings.Contains(body, c.not) {
				t.Errorf("the report has %q:\n%s", c.not, out.String())
			}
		})
	}
}

func TestProgressNamesRunningTests(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	r.line(strings.SplitAfter(timeout, "\n")[0])
	r.progress(time.Date(2026, 1, 1, 0, 0, 45, 0, time.UTC))
	if want := "running: TestHangs (c, 45s)\n"; out.String() != want {
		t.Errorf("progress is %q, want %q", out.String(), want)
	}
}
