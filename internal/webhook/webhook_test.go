package webhook

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openclaw-sandbox/internal/sandbox"
)

// Slack's documentation, "Verifying requests from Slack", has this very request.
const (
	slackSecret = "8f742231b10e8888abcd99yyyzzz85a5"
	slackTime   = 1531420618
	slackBody   = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
	slackSum    = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
)

var slackNow = time.Unix(slackTime, 0)

func masters(t *testing.T, fill ...byte) *Derived {
	t.Helper()
	var files []string
	for i, b := range fill {
		name := filepath.Join(t.TempDir(), fmt.Sprint(i))
		text := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, masterSize)) + "\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	d, err := ReadMasters(files...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func folder(t *testing.T, secrets map[string]string) Folder {
	t.Helper()
	dir := t.TempDir()
	for user, text := range secrets {
		if err := os.WriteFile(filepath.Join(dir, user), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Folder(dir)
}

func hook(name string, s Signature, secrets Secrets) Hook {
	return Hook{Name: name, Path: "/" + name, Methods: []string{"POST"}, Signature: s, Secrets: secrets, MaxBody: 1000, PerMinute: 1000, Hold: s.Hold()}
}

// request has header lines "Name: value".
func request(method, path, body string, header ...string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func TestSignatures(t *testing.T) {
	d := masters(t, 1, 2) // 2 is being replaced by 1
	other := masters(t, 3)
	const body = `{"update_id":1}`
	old, _ := d.Of("telegram", "alice")
	slacks := folder(t, map[string]string{"alice": slackSecret + "\n", "bob": "bobs-own", "carol": "new\n\n" + slackSecret, "dave": "\n"})
	sign := func(secret string, at time.Time) string {
		return SignedHeader + ": " + Sign([]byte(secret), []byte(body), at)
	}
	lineSum := base64.StdEncoding.EncodeToString(mac([]byte("bobs-own"), "", []byte(body)))
	const tg = "X-Telegram-Bot-Api-Secret-Token: "
	at := func(n int64) string { return fmt.Sprint("X-Slack-Request-Timestamp: ", n) }
	slackAt := func(n int64) string {
		return "X-Slack-Signature: v0=" + hex.EncodeToString(mac([]byte(slackSecret), fmt.Sprintf("v0:%d:", n), []byte(slackBody)))
	}
	telegram, slack, line, signed := hook("telegram", Telegram, d), hook("slack", Slack, slacks), hook("line", Line, slacks), hook("signed", Signed, d)
	for name, c := range map[string]struct {
		hook   Hook
		user   sandbox.User
		body   string
		header []string
		want   error
	}{
		"telegram":                   {telegram, "alice", body, []string{tg + d.Secret("telegram", "alice")}, nil},
		"telegram, the old master":   {telegram, "alice", body, []string{tg + string(old[1])}, nil},
		"telegram, another master":   {telegram, "alice", body, []string{tg + other.Secret("telegram", "alice")}, ErrSignature},
		"telegram, another user":     {telegram, "bob", body, []string{tg + d.Secret("telegram", "alice")}, ErrSignature},
		"telegram, another hook":     {telegram, "alice", body, []string{tg + d.Secret("signed", "alice")}, ErrSignature},
		"telegram, nothing":          {telegram, "alice", body, nil, ErrUnsigned},
		"telegram, empty":            {telegram, "alice", body, []string{tg}, ErrUnsigned},
		"telegram, twice":            {telegram, "alice", body, []string{tg + d.Secret("telegram", "alice"), tg + "x"}, ErrUnsigned},
		"telegram, a file's secret":  {hook("x", Telegram, slacks), "bob", body, []string{tg + "bobs-own"}, nil},
		"telegram, an empty file":    {hook("x", Telegram, slacks), "dave", body, []string{tg + "x"}, ErrSignature},
		"slack, its documentation":   {slack, "alice", slackBody, []string{at(slackTime), "X-Slack-Signature: " + slackSum}, nil},
		"slack, one of two secrets":  {slack, "carol", slackBody, []string{at(slackTime), "X-Slack-Signature: " + slackSum}, nil},
		"slack, another user":        {slack, "bob", slackBody, []string{at(slackTime), "X-Slack-Signature: " + slackSum}, ErrSignature},
		"slack, a user without":      {slack, "nobody", slackBody, []string{at(slackTime), "X-Slack-Signature: " + slackSum}, ErrSignature},
		"slack, another body":        {slack, "alice", slackBody + "x", []string{at(slackTime), "X-Slack-Signature: " + slackSum}, ErrSignature},
		"slack, another time":        {slack, "alice", slackBody, []string{at(slackTime + 1), "X-Slack-Signature: " + slackSum}, ErrSignature},
		"slack, five minutes old":    {slack, "alice", slackBody, []string{at(slackTime - 300), slackAt(slackTime - 300)}, nil},
		"slack, replayed":            {slack, "alice", slackBody, []string{at(slackTime - 301), slackAt(slackTime - 301)}, ErrStale},
		"slack, from the future":     {slack, "alice", slackBody, []string{at(slackTime + 301), slackAt(slackTime + 301)}, ErrStale},
		"slack, no time":             {slack, "alice", slackBody, []string{"X-Slack-Signature: " + slackSum}, ErrUnsigned},
		"slack, nonsense for a time": {slack, "alice", slackBody, []string{"X-Slack-Request-Timestamp: now", "X-Slack-Signature: " + slackSum}, ErrStale},
		"slack, an endless time":     {slack, "alice", slackBody, []string{"X-Slack-Request-Timestamp: -9223372036854775808", "X-Slack-Signature: " + slackSum}, ErrStale},
		"slack, another version":     {slack, "alice", slackBody, []string{at(slackTime), "X-Slack-Signature: v1" + slackSum[2:]}, ErrUnsigned},
		"slack, cut off":             {slack, "alice", slackBody, []string{at(slackTime), "X-Slack-Signature: " + slackSum[:21]}, ErrSignature},
		"slack, empty":               {slack, "alice", slackBody, []string{at(slackTime), "X-Slack-Signature: v0="}, ErrSignature},
		"line":                       {line, "bob", body, []string{"X-Line-Signature: " + lineSum}, nil},
		"line, another body":         {line, "bob", body + " ", []string{"X-Line-Signature: " + lineSum}, ErrSignature},
		"line, another user":         {line, "alice", body, []string{"X-Line-Signature: " + lineSum}, ErrSignature},
		"line, nothing":              {line, "bob", body, nil, ErrUnsigned},
		"line, no base64":            {line, "bob", body, []string{"X-Line-Signature: ?"}, ErrUnsigned},
		"signed":                     {signed, "alice", body, []string{sign(d.Secret("signed", "alice"), slackNow)}, nil},
		"signed, two sums":           {signed, "alice", body, []string{sign(d.Secret("signed", "alice"), slackNow) + ",v1=00"}, nil},
		"signed, another user":       {signed, "bob", body, []string{sign(d.Secret("signed", "alice"), slackNow)}, ErrSignature},
		"signed, another hook":       {hook("other", Signed, d), "alice", body, []string{sign(d.Secret("signed", "alice"), slackNow)}, ErrSignature},
		"signed, another body":       {signed, "alice", body + "x", []string{sign(d.Secret("signed", "alice"), slackNow)}, ErrSignature},
		"signed, replayed":           {signed, "alice", body, []string{sign(d.Secret("signed", "alice"), slackNow.Add(-Tolerance-time.Second))}, ErrStale},
		"signed, no sum":             {signed, "alice", body, []string{SignedHeader + ": t=1531420618"}, ErrUnsigned},
		"signed, nothing":            {signed, "alice", body, nil, ErrUnsigned},
		"signed, Telegram's way":     {signed, "alice", body, []string{tg + d.Secret("signed", "alice")}, ErrUnsigned},
	} {
		t.Run(name, func(t *testing.T) {
			s := New([]Hook{c.hook})
			s.now = func() time.Time { return slackNow }
			r := request("POST", c.hook.Path, c.body, c.header...)
			before := r.Header.Clone()
			err := s.Verify(httptest.NewRecorder(), r, c.hook, c.user)
			var refusal *Refusal
			if !errors.Is(err, c.want) || c.want != nil && (!errors.As(err, &refusal) || refusal.Result != Refused) {
				t.Fatalf("err = %v, want %v", err, c.want)
			}
			if c.want != nil {
				return
			}
			if got, _ := io.ReadAll(r.Body); string(got) != c.body || r.ContentLength != int64(len(c.body)) {
				t.Errorf("the body is now %q of %d", got, r.ContentLength)
			}
			if r.Header.Get(SignedHeader) != "" {
				t.Error("our own signature passes on")
			}
			before.Del(SignedHeader)
			for name := range before {
				if r.Header.Get(name) != before.Get(name) {
					t.Errorf("the header %s is now %q", name, r.Header.Get(name))
				}
			}
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestBodies(t *testing.T) {
	d := masters(t, 1)
	h := hook("x", Signed, d)
	s := New([]Hook{h})
	good := func(body string) string {
		return SignedHeader + ": " + Sign([]byte(d.Secret("x", "alice")), []byte(body), time.Now())
	}
	full, over := strings.Repeat("x", int(h.MaxBody)), strings.Repeat("x", int(h.MaxBody)+1)
	chunked := func(body string) *http.Request {
		r := request("POST", "/x", body, good(body), "Expect: 100-continue")
		r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
		return r
	}
	cut := request("POST", "/x", "", good(""))
	cut.Body, cut.ContentLength = io.NopCloser(broken{}), -1
	for name, c := range map[string]struct {
		r    *http.Request
		want Result
	}{
		"empty": {request("POST", "/x", "", good("")), Verified}, "full": {request("POST", "/x", full, good(full)), Verified}, "chunked": {chunked(full), Verified},
		"too large": {request("POST", "/x", over, good(over)), TooLarge}, "too large in chunks": {chunked(over), TooLarge}, "cut off": {cut, Broken},
	} {
		err := s.Verify(httptest.NewRecorder(), c.r, h, "alice")
		var refusal *Refusal
		if got := Verified; errors.As(err, &refusal) {
			if got = refusal.Result; got != c.want {
				t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
			}
		} else if c.want != Verified || err != nil || c.r.Header.Get("Expect") != "" || len(c.r.TransferEncoding) > 0 {
			t.Errorf("%s: %v, %v", name, err, c.r.Header)
		}
	}
}

func TestLimits(t *testing.T) {
	d := masters(t, 1)
	h := hook("x", Telegram, d)
	h.PerMinute, h.MaxBody = 2, 1<<20
	s := New([]Hook{h})
	now := time.Unix(1e9, 0)
	s.now = func() time.Time { return now }
	try := func(u sandbox.User, token, body string) (refusal Refusal) {
		t.Helper()
		if err := s.Verify(httptest.NewRecorder(), request("POST", "/x", body, "X-Telegram-Bot-Api-Secret-Token: "+token), h, u); err != nil {
			var p *Refusal
			if !errors.As(err, &p) {
				t.Fatal(err)
			}
			return *p
		}
		return Refusal{Result: Verified}
	}
	alice, bob := d.Secret("x", "alice"), d.Secret("x", "bob")
	for i, want := range []Result{Verified, Verified, Limited} {
		if got := try("alice", alice, ""); got.Result != want || (got.RetryAfter > 0) != (want == Limited) {
			t.Errorf("alice's %d: %+v, want %s", i, got, want)
		}
	}
	if got := try("bob", bob, ""); got.Result != Verified {
		t.Errorf("alice's budget is bob's: %+v", got)
	}
	now = now.Add(30 * time.Second)
	if got := try("alice", alice, ""); got.Result != Verified {
		t.Errorf("half a minute later: %+v", got)
	}
	for i := range failuresPerMinute {
		if got := try("alice", bob, ""); got.Result != Refused {
			t.Fatalf("failure %d: %+v", i, got)
		}
	}
	if got := try("alice", bob, ""); got.Result != Limited || got.RetryAfter == 0 {
		t.Errorf("one failure too many: %+v", got)
	}
	// Who signs well still passes, with what channels usually send.
	if got := try("bob", bob, strings.Repeat("x", suspectBody)); got.Result != Verified {
		t.Errorf("among failures: %+v", got)
	}
	if got := try("carol", d.Secret("x", "carol"), strings.Repeat("x", suspectBody+1)); got.Result != TooLarge {
		t.Errorf("a long body among failures: %+v", got)
	}
}

func TestUnreadableSecrets(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "alice"), 0o700); err != nil {
		t.Fatal(err)
	}
	h := hook("x", Line, Folder(dir))
	err := New([]Hook{h}).Verify(httptest.NewRecorder(), request("POST", "/x", ""), h, "alice")
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Result != Failed {
		t.Errorf("err = %v", err)
	}
	for name, text := range map[string]string{"short": "c2hvcnQ=", "no base64": "?"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadMasters(file); err == nil || strings.Contains(err.Error(), text) {
			t.Errorf("a master secret that is %s: %v", name, err)
		}
	}
	for _, files := range [][]string{nil, {"/no/such/file"}} {
		if _, err := ReadMasters(files...); err == nil {
			t.Errorf("%q: no error", files)
		}
	}
}

func TestMatch(t *testing.T) {
	d := masters(t, 1)
	a, b, c := hook("tg", Telegram, d), hook("all", Signed, d), hook("one", Signed, d)
	b.Path, c.Path, c.Methods = "/hooks/", "/hooks/one", []string{"POST", "PUT"}
	s := New([]Hook{a, b, c})
	for line, want := range map[string]string{
		"POST /tg": "tg", "POST /tg?x=/../y": "tg", "GET /tg": "", "HEAD /tg": "", "POST /tg/": "", "POST /tg/x": "", "POST /TG": "", "POST /": "",
		"POST /hooks": "", "POST /hooks/": "all", "POST /hooks/agent": "all", "POST /hooks/a/b/": "all", "PUT /hooks/agent": "",
		"POST /hooks/one": "one", "PUT /hooks/one": "one", "POST /hooks/one/": "all",
		// To the gateway these may be other paths.
		"POST /hooks/../v1/models": "", "POST /hooks/./x": "", "POST /hooks//x": "", "POST /hooks/%2e%2e/v1/models": "", "POST /hooks/a%2Fb": "", "POST /hooks/..%5cv1": "", "POST /t%67": "",
		`POST /hooks/..\v1`: "",
	} {
		// As it comes in: a client library would tidy the path.
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		h, ok := s.Match(r)
		if h.Name != want || ok != (want != "") {
			t.Errorf("%s: hook %q, want %q", line, h.Name, want)
		}
	}
	r := request("POST", "/tg", "", "Connection: Upgrade", "Upgrade: websocket")
	if _, ok := s.Match(r); ok {
		t.Error("an upgrade is a webhook")
	}
}

func TestCheck(t *testing.T) {
	d := masters(t, 1)
	for name, c := range map[string]struct {
		edit func(*Hook)
		want string
	}{
		"good": {func(*Hook) {}, ""}, "a prefix": {func(h *Hook) { h.Path = "/hooks/" }, ""}, "deep": {func(h *Hook) { h.Path = "/apis/healthz" }, ""},
		"name":        {func(h *Hook) { h.Name = "a\nb" }, "name"},
		"everything":  {func(h *Hook) { h.Path = "/" }, "path"},
		"relative":    {func(h *Hook) { h.Path = "x" }, "path"},
		"dots":        {func(h *Hook) { h.Path = "/x/../api/chat" }, "path"},
		"escaped":     {func(h *Hook) { h.Path = "/%61pi/" }, "path"},
		"query":       {func(h *Hook) { h.Path = "/x?y" }, "path"},
		"our own":     {func(h *Hook) { h.Path = "/_sandbox/x" }, "router's own"},
		"all our own": {func(h *Hook) { h.Path = "/_sandbox/" }, "router's own"},
		"API":         {func(h *Hook) { h.Path = "/api/" }, "router's own"},
		"API itself":  {func(h *Hook) { h.Path = "/API" }, "router's own"},
		"users":       {func(h *Hook) { h.Path = "/u/" }, "router's own"},
		"health":      {func(h *Hook) { h.Path = "/health" }, "router's own"},
		"no method":   {func(h *Hook) { h.Methods = nil }, "methods"},
		"lower case":  {func(h *Hook) { h.Methods = []string{"post"} }, "methods"},
		"signature":   {func(h *Hook) { h.Signature = "magic" }, "signature"},
		"LINE's own":  {func(h *Hook) { h.Signature = Line }, "secrets_dir"},
		"no body":     {func(h *Hook) { h.MaxBody = 0 }, "max_body"},
		"port":        {func(h *Hook) { h.Port = 65536 }, "port"},
	} {
		h := hook("good", Signed, d)
		c.edit(&h)
		if err := h.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a mention of %q", name, err, c.want)
		}
	}
}
