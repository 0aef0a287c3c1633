//go:build !linux

package devcluster

func unmount(string) {}
