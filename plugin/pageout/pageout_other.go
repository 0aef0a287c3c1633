//go:build !linux

package pageout

import (
	"context"
	"errors"
)

// Out needs Linux; elsewhere it returns errors.ErrUnsupported.
func Out(context.Context, string, []int) (Result, error) { return Result{}, errors.ErrUnsupported }
