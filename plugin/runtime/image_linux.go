package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/drivers/exec"
	"github.com/hashicorp/nomad/drivers/shared/executor"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/fsisolation"
	"golang.org/x/sys/unix"
)

// HostImage takes the node's own root as the image: for development only, since
// the sandbox can then read what any user of the node can read.
const HostImage = "host"

// defaultPath is what container engines give a process whose image sets none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// image runs the process by Nomad's exec driver (libcontainer) on an overlay: the
// image below, an upper layer of this run alone above. No daemon, no chroot copy.
type image struct{ inner drivers.DriverPlugin }

func newImage(ctx context.Context, log hclog.Logger) (Runtime, error) {
	return &image{inner: exec.NewExecDriver(ctx, log)}, nil
}

func (r *image) Name() string                { return "image" }
func (r *image) Inner() drivers.DriverPlugin { return r.inner }
func (r *image) DefaultUser() string         { return "nobody" }

func (r *image) Check() error {
	if os.Geteuid() != 0 {
		return errors.New("runtime image needs root; run the Nomad client as root, or set runtime = \"raw_exec\" for development")
	}
	fs, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if !strings.Contains(string(fs), "\toverlay\n") {
		return errors.New("runtime image needs overlayfs; load the kernel module overlay")
	}
	return nil
}

func (r *image) Configure(agent *base.AgentConfig) error {
	return configure(r.inner, &exec.Config{
		DefaultModePID: executor.IsolationModePrivate,
		DefaultModeIPC: executor.IsolationModePrivate,
		AllowCaps:      []string{"all"}, // what the node allows; each task drops all
	}, agent)
}

// Capabilities are exec's, with a file system that Nomad is not to build.
func (r *image) Capabilities() (*drivers.Capabilities, error) {
	c, err := r.inner.Capabilities()
	if err != nil {
		return nil, err
	}
	own := *c
	own.FSIsolation = fsisolation.Image
	return &own, nil
}

func (r *image) CheckSpec(s Spec) error {
	switch {
	case s.Image != HostImage:
		return fmt.Errorf("image: only %q is served by this version, got %q", HostImage, s.Image)
	case !filepath.IsAbs(s.StatePath) || filepath.Clean(s.StatePath) != s.StatePath || s.StatePath == "/":
		return fmt.Errorf("state_path: want a clean absolute path below /, got %q", s.StatePath)
	}
	return nil
}

func (r *image) StatePath(s Spec, _ Dirs) string { return s.StatePath }

// root is where the inner driver looks for the task's root file system: it takes
// the folder <AllocDir>/<task>.
func root(cfg *drivers.TaskConfig, d Dirs) string { return filepath.Join(d.Run, cfg.Name) }

func (r *image) Prepare(cfg *drivers.TaskConfig, s Spec, d Dirs) (*drivers.TaskConfig, error) {
	upper, work, merged := filepath.Join(d.Run, ".upper"), filepath.Join(d.Run, ".work"), root(cfg, d)
	for _, dir := range []string{upper, work, merged} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("prepare the root file system: %w", err)
		}
	}
	// nosuid: the set-id programs of the image must not lead to another user.
	options := fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", upper, work)
	if err := unix.Mount("overlay", merged, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return nil, fmt.Errorf("mount the root file system: %w", err)
	}
	for _, dir := range []string{"alloc", "local", "secrets", s.StatePath} {
		// In the overlay: through os.Root, since an image's links are not to be followed out of it.
		if err := mkdirIn(merged, dir); err != nil {
			return nil, fmt.Errorf("prepare the root file system: %w", err)
		}
	}
	in := r.Inside(cfg, d)
	// Nomad gives the node's own PATH only to tasks without an image.
	if in.Env["PATH"] == "" {
		in.Env["PATH"] = defaultPath
	}
	dirs := cfg.TaskDir()
	in.Mounts = append(in.Mounts,
		&drivers.MountConfig{HostPath: dirs.SharedAllocDir, TaskPath: "/alloc"},
		&drivers.MountConfig{HostPath: dirs.LocalDir, TaskPath: "/local"},
		&drivers.MountConfig{HostPath: dirs.SecretsDir, TaskPath: "/secrets"},
		&drivers.MountConfig{HostPath: d.State, TaskPath: s.StatePath},
	)
	// The exec driver makes capabilities ambient, so that even nobody would have
	// them: a sandbox has none.
	if err := in.EncodeConcreteDriverConfig(&exec.TaskConfig{Command: s.Command, Args: s.Args, CapDrop: []string{"all"}}); err != nil {
		return nil, fmt.Errorf("encode the task for exec: %w", err)
	}
	return in, nil
}

func (r *image) Inside(cfg *drivers.TaskConfig, d Dirs) *drivers.TaskConfig {
	in := cfg.Copy()
	in.AllocDir = d.Run
	return in
}

func (r *image) Cleanup(d Dirs) error {
	entries, err := os.ReadDir(d.Run)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		// EINVAL: nothing is mounted there.
		path := filepath.Join(d.Run, e.Name())
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}

func mkdirIn(rootDir, path string) error {
	r, err := os.OpenRoot(rootDir)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.MkdirAll(strings.TrimPrefix(path, "/"), 0o755)
}
