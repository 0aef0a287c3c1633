package chat

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// A gateway runs its user's code, so everything that it says is bounded here.
const (
	// maxHead bounds the bytes of the answer to the upgrade, head and body.
	maxHead = 64 << 10
	// maxReply bounds a message to a client that only asks: lists of jobs and the snapshot
	// in the first answer, which are some tens of KiB. A chat may be as large as maxMessage.
	maxReply = 4 << 20
	// maxEarly and maxEarlyBytes bound the events that are kept while a call waits.
	maxEarly, maxEarlyBytes = 1000, 4 << 20
	// maxText bounds a text that is logged, stored or shown, in bytes.
	maxText = 200
	// maxBlockers is how many of a gateway's reasons for being busy are passed on.
	maxBlockers = 5
	// maxRetry bounds what a busy gateway may ask for: it is asked again after that.
	maxRetry = 10 * time.Minute
	// maxAhead bounds when a job is said to be due. JSON cannot hold years above 9999.
	maxAhead = 10 * 365 * 24 * time.Hour
)

// ErrTooMuch means that the gateway said more than a client keeps. It is ErrBroken.
var ErrTooMuch = fmt.Errorf("%w: it said more than is kept", ErrBroken)

// Text returns what may be logged, stored and shown of a gateway's words: at most 200
// bytes of valid UTF-8 in one line, without control characters.
func Text(s string) string {
	cut := s
	if len(cut) > maxText {
		cut = cut[:maxText]
		for len(cut) > 0 && !utf8.RuneStart(s[len(cut)]) {
			cut = cut[:len(cut)-1]
		}
	}
	cut = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, cut)
	if len(cut) <= maxText {
		return cut
	}
	return strings.ToValidUTF8(cut[:maxText], "")
}

// brokenError is a connection that ended. Its cause may quote the gateway.
type brokenError struct{ cause error }

func (e *brokenError) Error() string { return ErrBroken.Error() + ": " + Text(e.cause.Error()) }

// Unwrap makes it ErrBroken, and its cause.
func (e *brokenError) Unwrap() []error { return []error{ErrBroken, e.cause} }

// errHead means that the answer to the upgrade is too large.
var errHead = errors.New("the answer's head is too large")

// boundedConn is a connection of which only a bounded number of bytes can be read until
// the bound is lifted: the WebSocket library does not bound the head that it reads.
type boundedConn struct {
	net.Conn
	left   atomic.Int64
	lifted atomic.Bool
}

func newBounded(c net.Conn) *boundedConn {
	b := &boundedConn{Conn: c}
	b.left.Store(maxHead)
	return b
}

// Read is the connection's, within the bound.
func (b *boundedConn) Read(p []byte) (int, error) {
	if b.lifted.Load() {
		return b.Conn.Read(p)
	}
	left := b.left.Load()
	if left <= 0 {
		return 0, errHead
	}
	n, err := b.Conn.Read(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(n))
	return n, err
}
