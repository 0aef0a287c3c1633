package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"openclaw-sandbox/test/patience"
)

// browser is one tab of a headless Chromium with a profile of its own.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// newBrowser starts Chromium, which ends with the test.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	bin, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("no chromium on PATH: run `make tools` (%v)", err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(bin),
		chromedp.NoSandbox, // Chromium refuses its own sandbox as root
		chromedp.WindowSize(1280, 860),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		// Nothing but this machine is there to be looked up.
		chromedp.Flag("host-resolver-rules", "MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
	)
	alloc, stopBrowser := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, closeTab := chromedp.NewContext(alloc)
	t.Cleanup(func() { closeTab(); stopBrowser() })
	return &browser{t: t, ctx: ctx}
}

// within runs an action with a limit, and returns its result.
func within[T any](b *browser, limit time.Duration, a chromedp.Action[T]) (T, error) {
	// The first Run of a chromedp context must not have a deadline: it owns the tab.
	if err := chromedp.Do(b.ctx); err != nil {
		var zero T
		return zero, err
	}
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	return chromedp.Run(ctx, a)
}

// must runs an action that has to succeed; what names it in the failure.
func must[T any](b *browser, limit time.Duration, what string, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := within(b, patience.Of(limit), a)
	if err != nil {
		b.shot("failed-" + b.t.Name())
		b.t.Fatalf("%s: %v\npage text: %.600s", what, err, b.text())
	}
	return v
}

// until waits until JavaScript says true, across reloads of the page.
func (b *browser) until(limit time.Duration, what, condition string) {
	b.t.Helper()
	limit = patience.Of(limit)
	for end := time.Now().Add(limit); ; time.Sleep(pollPause) {
		ok, err := within(b, 5*time.Second, chromedp.Evaluate[bool](condition))
		if err == nil && ok {
			return
		}
		if time.Now().After(end) {
			b.shot("failed-" + b.t.Name())
			b.t.Fatalf("no %s within %s (%v)\npage text: %.800s", what, limit, err, b.text())
		}
	}
}

func (b *browser) open(url string) {
	b.t.Helper()
	must(b, 30*time.Second, "open "+url, chromedp.Navigate(url))
}

// walk is JavaScript that knows open shadow roots, of which the Control UI and
// the Consul UI are made.
const walk = `
const __text = (n) => { let s = ''; for (const c of n.childNodes) {
  if (c.nodeType === 3) s += c.textContent + ' ';
  else if (c.nodeType === 1 && !['STYLE', 'SCRIPT', 'TEMPLATE'].includes(c.tagName)) { s += __text(c); if (c.shadowRoot) s += __text(c.shadowRoot); }
} return s; };
const __find = (root, ok) => { for (const e of root.querySelectorAll('*')) {
  if (ok(e)) return e;
  if (e.shadowRoot) { const x = __find(e.shadowRoot, ok); if (x) return x; }
} };`

func js(body string) string { return "(() => {" + walk + body + "})()" }

// text is what the page shows, shadow roots included, in one line.
func (b *browser) text() string {
	s, err := within(b, 5*time.Second, chromedp.Evaluate[string](js(`return __text(document.body).replace(/\s+/g, ' ')`)))
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return s
}

// waitText waits until the page shows every one of the words.
func (b *browser) waitText(limit time.Duration, words ...string) {
	b.t.Helper()
	list, err := json.Marshal(words)
	if err != nil {
		b.t.Fatal(err)
	}
	cond := js(`const t = document.body ? __text(document.body).replace(/\s+/g, ' ') : ''; return ` + string(list) + `.every((w) => t.includes(w))`)
	b.until(limit, strings.Join(words, "+"), cond)
}

// composer finds the box that a chat message is typed into.
const composer = `__find(document, (e) => (e.tagName === 'TEXTAREA' || e.isContentEditable) && e.offsetParent !== null && !e.disabled)`

// waitComposer waits until the Control UI lets a message be typed.
func (b *browser) waitComposer(limit time.Duration) {
	b.t.Helper()
	b.until(limit, "the composer", js(`return !!`+composer))
}

// say types a message and sends it.
func (b *browser) say(message string) {
	b.t.Helper()
	must(b, 20*time.Second, "find the composer", chromedp.Evaluate[bool](js(composer+`.focus(); return true`)))
	must(b, 20*time.Second, "type a message", chromedp.Steps(chromedp.KeyEvent(message), chromedp.KeyEvent(kb.Enter)))
}

// click clicks the link with that text.
func (b *browser) click(text string) {
	b.t.Helper()
	b.until(10*time.Second, "link "+text, js(`const e = __find(document, (e) => e.tagName === 'A' && e.textContent.trim() === '`+text+`'); if (e) e.click(); return !!e`))
}

// shot keeps a screenshot among the test's artifacts.
func (b *browser) shot(name string) {
	b.t.Helper()
	png, err := within(b, 20*time.Second, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Logf("screenshot %s: %v", name, err)
		return
	}
	file := filepath.Join(artifacts, strings.ReplaceAll(name, "/", "-")+".png")
	if err := os.WriteFile(file, png, 0o644); err != nil {
		b.t.Errorf("keep screenshot: %v", err)
		return
	}
	b.t.Logf("screenshot: %s", file)
}
