package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openclaw-sandbox/internal/devcluster"
)

const (
	diskBridge       = "ocs-e2e1"
	diskBridgeSubnet = "172.26.114.0/24"
	// diskSize is of the small disk, in bytes: for the folder of one gateway, and some room.
	diskSize = 512 << 20
	// fullTurn is how long a turn on a full disk may take to end in whatever way.
	fullTurn = 30 * time.Second
)

// The disk with the states and the spool is full while somebody chats. Every turn
// that had ended before is there after the next start, every database is whole, and
// the last save needs no room: not to the store, and not on the node while the store
// is away.
func TestDiskFullWhileChatting(t *testing.T) {
	whole := needStack(t)
	s, disk := upOnSmallDisk(t, whole)
	for _, c := range []struct {
		name, user string
		away       bool
	}{{"store up", "nadia", false}, {"store away", "nolan", true}} {
		t.Run(c.name, func(t *testing.T) {
			session := dial(t, s.dev, c.user)
			var said []string
			say := func(message string) {
				t.Helper()
				session.chat(message)
				said = append(said, message)
			}
			say("turn-001")
			say("turn-002")
			s.waitSaved(t, c.user, time.Now())
			say("turn-003")

			filler := fill(t, disk)
			failed := 0
			for i := range 3 {
				status, text := s.try(t, c.user, fmt.Sprintf("full-%03d", i))
				t.Logf("a turn on the full disk: %d %.200s", status, text)
				if status != http.StatusOK {
					failed++
				}
			}
			if failed == 0 {
				t.Error("no turn met the full disk")
			}
			s.integrity(t, c.user) // of what was committed before

			if c.away {
				s.power(t, false)
				for _, id := range s.liveChildren(t, c.user) {
					if _, _, err := s.Nomad.Client().Jobs().Deregister(id, false, nil); err != nil {
						t.Fatal(err)
					}
				}
				eventually(t, time.Minute, "spooled state", func() bool { return len(spooledIn(t, disk)) == 1 })
				s.power(t, true)
				eventually(t, time.Minute, "empty spool", func() bool { return len(spooledIn(t, disk)) == 0 })
			}
			s.stop(t, c.user)
			s.integrity(t, c.user)

			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			session = dial(t, s.dev, c.user)
			h := session.history()
			for _, want := range said {
				if !strings.Contains(h, "You said: "+want) {
					t.Errorf("the history lacks %q: %.600s", want, h)
				}
			}
			session.chat("after the disk was full")
			s.stop(t, c.user)
			s.integrity(t, c.user)
		})
	}
}

// upOnSmallDisk starts a stack whose driver has a small disk for its folder.
func upOnSmallDisk(t *testing.T, whole *stack) (s *stack, disk string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ocs-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	disk = filepath.Join(dir, "disk")
	// The sandbox's user must get to start.sh.
	if err := errors.Join(os.Chmod(dir, 0o711), os.Mkdir(disk, 0o700), unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Errorf("something still uses the disk: %v", err)
			unix.Unmount(disk, unix.MNT_DETACH)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err = upWith(ctx, devcluster.Options{Source: whole.source, Bin: whole.bin, Dir: filepath.Join(dir, "stack"), DataDir: disk,
		Bridge: diskBridge, BridgeSubnet: diskBridgeSubnet, Routers: []devcluster.RouterOptions{{Job: "sandbox-router", Identity: devIdentity}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			keepLogs(filepath.Join(dir, "stack"))
		}
		down, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		if err := s.Down(down); err != nil {
			t.Errorf("the stack does not stop: %v", err)
		}
	})
	return s, disk
}

// fill writes a file until the disk is full.
func fill(t *testing.T, disk string) (file string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); ; {
		_, err := f.Write(page)
		if errors.Is(err, unix.ENOSPC) {
			return f.Name()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// try sends a message once, and says what came of it: 0 and the error if nothing did.
func (s *stack) try(t *testing.T, user, message string) (status int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), fullTurn)
	defer cancel()
	body, err := json.Marshal(map[string]string{"message": message})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.dev.addr+"/api/chat", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = s.dev.host(user)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(answer)
}

// spooledIn are the states that wait in a driver's folder for the store.
func spooledIn(t *testing.T, dataDir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dataDir, "spool", "[^.]*")) // not what is reserved
	if err != nil {
		t.Fatal(err)
	}
	return names
}
