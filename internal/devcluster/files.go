package devcluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"openclaw-sandbox/plugin/egress"
)

// secretFile reads a secret, and makes one the first time.
func secretFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(rand.Text())
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("secret: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// copyFile replaces to by a copy of from; a running program keeps the old one.
func copyFile(from, to string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("%w; run `make build`", err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.WriteFile(to, b, mode), os.Chmod(to, mode))
}

// sweepNode removes what Nomad and the driver leave on the node for a next start:
// the driver's firewall rules and empty cgroups. The rest went with the agent.
func (s *Stack) sweepNode(ctx context.Context) error {
	err := egress.Rules{Bridge: s.o.Bridge}.Remove(ctx)
	if nomadRuns() {
		return err // its cgroups are these, and it wants the empty ones, too
	}
	// Deepest first.
	for _, pattern := range []string{"/sys/fs/cgroup/*/nomad/*/*", "/sys/fs/cgroup/*/nomad/*", "/sys/fs/cgroup/*/nomad", "/sys/fs/cgroup/nomad.slice/*/*", "/sys/fs/cgroup/nomad.slice/*", "/sys/fs/cgroup/nomad.slice"} {
		dirs, _ := filepath.Glob(pattern)
		for _, d := range dirs {
			if info, err := os.Lstat(d); err == nil && info.IsDir() {
				os.Remove(d)
			}
		}
	}
	return err
}
