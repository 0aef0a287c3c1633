package driver

import (
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/hashicorp/nomad/plugins/drivers"
)

const (
	logTail  = 8 << 10 // of a log that is read
	logLines = 4
	logShown = 500 // characters, at most
)

// The log goes through a process of Nomad's, so its end comes a moment late.
const (
	logWait  = time.Second
	logPause = 50 * time.Millisecond
)

// awaitLog is lastLogLines, with a little patience.
func (t *task) awaitLog() string {
	tick := time.NewTicker(logPause)
	defer tick.Stop()
	for end := time.Now().Add(logWait); ; <-tick.C {
		if text := lastLogLines(t.cfg); text != "" || time.Now().After(end) {
			return text
		}
	}
}

// lastLogLines are the end of the task's own log, made safe to show. The sandbox
// can write in that folder, so its links are not followed.
func lastLogLines(cfg *drivers.TaskConfig) string {
	dir, err := os.OpenRoot(cfg.TaskDir().LogDir)
	if err != nil {
		return ""
	}
	defer dir.Close()
	for _, name := range []string{cfg.Name + ".stderr.0", cfg.Name + ".stdout.0"} {
		if text := tail(dir, name); text != "" {
			return text
		}
	}
	return ""
}

func tail(dir *os.Root, name string) string {
	// A FIFO that the sandbox put there must not be waited for.
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	if _, err := f.Seek(max(0, info.Size()-logTail), io.SeekStart); err != nil {
		return ""
	}
	raw, err := io.ReadAll(io.LimitReader(f, logTail))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(raw), "�")), "\n")
	text := strings.Join(lines[max(0, len(lines)-logLines):], " / ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
	if r := []rune(text); len(r) > logShown {
		text = "…" + string(r[len(r)-logShown:])
	}
	return text
}
