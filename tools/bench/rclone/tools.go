//go:build tools

// Package tools pins the version that the benchmarks measure against.
package tools

import _ "github.com/rclone/rclone"
