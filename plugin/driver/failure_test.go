package driver

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// Each cause of a failed start has its class, and a sentence that says what to do.
func TestFailure(t *testing.T) {
	for _, c := range []struct {
		err    error
		reason sandbox.Reason
		says   string
	}{
		{snapshot.ErrCorrupt, sandbox.ReasonStateCorrupt, "sandboxctl restore"},
		{snapshot.ErrNewer, sandbox.ReasonConfig, "install the newer driver"},
		{snapshot.ErrTooLarge, sandbox.ReasonStateTooLarge, "snapshot.max_bytes"},
		{snapshot.ErrKey, sandbox.ReasonConfig, "encryption block"},
		{snapshot.ErrFenced, sandbox.ReasonFenced, "use that one"},
		{objstore.ErrDenied, sandbox.ReasonStoreDenied, "store block"},
		{objstore.ErrUnreachable, sandbox.ReasonStoreUnreachable, "try again when it is back"},
		{&sandbox.Failure{Reason: sandbox.ReasonExited, Message: "It exited."}, sandbox.ReasonExited, "It exited."},
		{errors.New("odd"), sandbox.ReasonInternal, "odd"},
	} {
		f := failure(fmt.Errorf("restore alice: %w", c.err))
		if f.Reason != c.reason || !strings.Contains(f.Message, c.says) || !strings.HasSuffix(f.Message, ".") {
			t.Errorf("%v: %s, %q; want %s and %q", c.err, f.Reason, f.Message, c.reason, c.says)
		}
	}
}
