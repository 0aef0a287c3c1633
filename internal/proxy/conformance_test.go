package proxy

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestRequests(t *testing.T) {
	for _, front := range fronts {
		t.Run(front.name, func(t *testing.T) { testRequests(t, front.serve) })
	}
}

func testRequests(t *testing.T, serve func(*testing.T, http.Handler) net.Addr) {
	for _, c := range requests {
		t.Run(c.section+" "+c.rule, func(t *testing.T) {
			g := newRawGateway(t)
			got := statuses(through(t, serve, c.raw, g.Addr().String()))
			if got != c.statuses {
				t.Errorf("statuses = %s, want %s", got, c.statuses)
			}
			g.Close()
			g.hangUp()
			g.wg.Wait()
			for i := range g.got {
				g.got[i] = ordered(g.got[i])
			}
			if !slices.Equal(g.got, c.gateway) {
				t.Errorf("the gateway got\n%q, want\n%q", g.got, c.gateway)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	for _, front := range fronts {
		t.Run(front.name, func(t *testing.T) { testAnswers(t, front.serve) })
	}
}

func testAnswers(t *testing.T, serve func(*testing.T, http.Handler) net.Addr) {
	for _, c := range answers {
		t.Run(c.section+" "+c.rule, func(t *testing.T) {
			addr := talker(t, func(conn *net.TCPConn, br *bufio.Reader, _ *http.Request) {
				io.WriteString(conn, c.answer)
				if !c.stays {
					conn.CloseWrite()
				}
				io.Copy(io.Discard, br)
			})
			got := through(t, serve, cmp.Or(c.request, get("")), addr)
			if len(c.client) == len("502") {
				got = statuses(got)
			} else {
				got = dateless(got)
			}
			if got != c.client {
				t.Errorf("the client got\n%q, want\n%q", got, c.client)
			}
		})
	}
}

// dateless is raw with the fields of each head in order and without the Date that
// net/http adds (RFC 9110 section 6.6.1).
func dateless(raw string) string {
	head, rest, ok := strings.Cut(raw, "\r\n\r\n")
	if !ok {
		return raw
	}
	lines := strings.Split(head, "\r\n")
	fields := slices.DeleteFunc(lines[1:], func(l string) bool { return strings.HasPrefix(l, "Date: ") })
	slices.Sort(fields)
	if strings.HasPrefix(lines[0], "HTTP/1.1 1") {
		rest = dateless(rest)
	}
	return strings.Join(append(lines[:1], fields...), "\r\n") + "\r\n\r\n" + rest
}

// The table for people says what the tables for the tests say, in order.
func TestConformanceDoc(t *testing.T) {
	const path = "../../docs/conformance.md"
	var b strings.Builder
	b.WriteString(`# HTTP as the router speaks it

What happens to a request on its way to a gateway, and to an answer on its way back, by rule of RFC 9110 (HTTP semantics) and RFC 9112 (HTTP/1.1). In front is Go's net/http,
but for plain GET and HEAD requests, of which internal/http1 takes a strict part; all of this holds with either. Towards the gateway a client of our own ([architecture.md](architecture.md)). Written from the tests, which send each row byte by byte:
` + "`WRITE_DOCS=1 go test -run TestConformanceDoc ./internal/proxy`" + `.

The router adds no Via (RFC 9110 section 7.6.3 asks for it): it is the gateway's own front, not a proxy of the client's. It says where a request came from by X-Forwarded-For.

## Requests

| RFC | rule | what becomes of it |
|---|---|---|
`)
	was := ""
	row := func(section string, cells ...string) {
		fmt.Fprintf(&b, "| %s | %s |\n", section, strings.Join(cells, " | "))
		if older(section, was) {
			t.Errorf("%s comes after %s", section, was)
		}
		was = section
	}
	for _, c := range requests {
		row(c.section, c.rule, outcome(c.does, c.statuses))
	}
	b.WriteString("\n## Answers\n\n| RFC | rule | what becomes of it |\n|---|---|---|\n")
	was = ""
	for _, c := range answers {
		row(c.section, c.rule, outcome(c.does, c.client))
	}
	b.WriteString("\n## WebSockets\n\nOnce both ends have switched, frames pass byte for byte in both directions; whether they may be sent is for the ends to judge.\n" +
		"Compression, subprotocols and close codes are what the ends agree on. A reader that does not read holds its writer back; the router takes\n" +
		"64 KiB per direction, and the kernel what its socket buffers hold.\n\n| RFC | what passes as it is |\n|---|---|\n")
	was = ""
	for _, c := range frames {
		row(c.section, c.rule)
	}
	if os.Getenv("WRITE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != b.String() {
		t.Errorf("docs/conformance.md is not what the tables say (%v); run WRITE_DOCS=1 go test -run TestConformanceDoc ./internal/proxy", err)
	}
}

func outcome(does, statuses string) string {
	switch {
	case does != "":
		return does
	case statuses >= "400" && statuses < "600" && len(statuses) == 3:
		return "refused with " + statuses
	}
	return "passes"
}

// older compares sections, such as 9112 6.3.
func older(a, b string) bool {
	numbers := func(s string) (out []int) {
		for _, n := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '.' }) {
			i, _ := strconv.Atoi(n)
			out = append(out, i)
		}
		return out
	}
	return slices.Compare(numbers(a), numbers(b)) < 0
}
