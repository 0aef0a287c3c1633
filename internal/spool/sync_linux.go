package spool

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncTree makes what lies below dir durable, by syncing its whole file system:
// nothing in a sandbox's tree has to be opened (syncfs(2)).
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
