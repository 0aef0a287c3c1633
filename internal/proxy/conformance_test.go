package proxy

import (
	"bufio"
	"cmp"
	"flag"
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

var update = flag.Bool("update", false, "write docs/conformance.md")

func TestRequests(t *testing.T) {
	for _, c := range requests {
		t.Run(c.section+" "+c.rule, func(t *testing.T) {
			g := newRawGateway(t)
			got := statuses(through(t, c.raw, g.Addr().String()))
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
	for _, c := range answers {
		t.Run(c.section+" "+c.rule, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						br := bufio.NewReader(conn)
						if _, err := http.ReadRequest(br); err != nil {
							return
						}
						io.WriteString(conn, c.answer)
						if !c.stays {
							conn.(*net.TCPConn).CloseWrite()
						}
						io.Copy(io.Discard, br)
					}()
				}
			}()
			request := cmp.Or(c.request, get(""))
			got := through(t, request, l.Addr().String())
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
towards the gateway a client of our own ([architecture.md](architecture.md)). Written from the tests, which send each row byte by byte:
` + "`go test ./internal/proxy -run Conformance -update`" + `.

The router adds no Via (RFC 9110 section 7.6.3 asks for it): it is the gateway's own front, not a proxy of the client's. It says where a request came from by X-Forwarded-For.

## Requests

| RFC | rule | what becomes of it |
|---|---|---|
`)
	was := ""
	for _, c := range requests {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.section, c.rule, outcome(c.does, c.statuses))
		if older(c.section, was) {
			t.Errorf("%s comes after %s", c.section, was)
		}
		was = c.section
	}
	b.WriteString("\n## Answers\n\n| RFC | rule | what becomes of it |\n|---|---|---|\n")
	was = ""
	for _, c := range answers {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.section, c.rule, outcome(c.does, c.client))
		if older(c.section, was) {
			t.Errorf("%s comes after %s", c.section, was)
		}
		was = c.section
	}
	b.WriteString("\n## WebSockets\n\nOnce both ends have switched, frames pass byte for byte in both directions; whether they may be sent is for the ends to judge.\n" +
		"Compression, subprotocols and close codes are what the ends agree on. A reader that does not read holds its writer back; the router takes\n" +
		"64 KiB per direction, and the kernel what its socket buffers hold.\n\n| RFC | what passes as it is |\n|---|---|\n")
	was = ""
	for _, c := range frames {
		fmt.Fprintf(&b, "| %s | %s |\n", c.section, c.rule)
		if older(c.section, was) {
			t.Errorf("%s comes after %s", c.section, was)
		}
		was = c.section
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != b.String() {
		t.Errorf("docs/conformance.md is not what the tables say (%v); run the test with -update", err)
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
