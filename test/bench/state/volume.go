package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// volumeSize is what everything here needs, with room to spare.
const volumeSize = 40 << 30

// volume makes a file system of its own in a folder, an empty XFS on a loop
// device, and returns where it is mounted and what undoes that. What a file's
// creation costs depends on what was created and removed before; so nobody pays
// for that. Without root or mkfs.xfs it is the folder as it is.
func volume(dir string) (at, what string, undo func() error, err error) {
	if _, err := exec.LookPath("mkfs.xfs"); err != nil || os.Geteuid() != 0 {
		return dir, "the machine's own file system", func() error { return nil }, nil
	}
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "volume")
	f, err := os.Create(image)
	if err != nil {
		return "", "", nil, err
	}
	defer f.Close()
	if err := f.Truncate(volumeSize); err != nil {
		return "", "", nil, err
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		return "", "", nil, err
	}
	for _, argv := range [][]string{{"mkfs.xfs", "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return "", "", nil, fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	return at, "XFS on a loop device", func() error {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			return fmt.Errorf("umount %s: %w: %s", at, err, out)
		}
		return nil
	}, nil
}
