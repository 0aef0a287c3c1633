//go:build !linux

package spool

import "golang.org/x/sys/unix"

// syncTree makes everything durable.
func syncTree(string) error { return unix.Sync() }
