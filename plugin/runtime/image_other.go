//go:build !linux

package runtime

import (
	"context"
	"errors"

	"github.com/hashicorp/go-hclog"
)

func newImage(context.Context, hclog.Logger) (Runtime, error) {
	return nil, errors.New("runtime: image runs on Linux only; set runtime = \"raw_exec\"")
}
