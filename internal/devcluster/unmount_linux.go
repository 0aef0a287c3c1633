package devcluster

import "golang.org/x/sys/unix"

// unmount detaches a mount; one that is in use goes when its last user does.
func unmount(path string) { unix.Unmount(path, unix.MNT_DETACH) }
