package snapshot

import (
	"bytes"
	"errors"
	"io"
)

// outlet sends a segment: at once and from memory if it is small, and else while it
// is being written, so that neither memory nor the node's disk must hold it.
type outlet struct {
	upload func(io.Reader) error
	mem    bytes.Buffer
	pipe   *io.PipeWriter
	sent   chan error // the outcome, once
}

// streamFrom is the size from which a segment is sent while it is written.
const streamFrom = 8 << 20

// errGivenUp ends the upload of a segment that is not wanted any more.
var errGivenUp = errors.New("the save was given up")

func (o *outlet) Write(p []byte) (int, error) {
	if o.pipe != nil {
		return o.pipe.Write(p)
	}
	o.mem.Write(p)
	if o.mem.Len() < streamFrom {
		return len(p), nil
	}
	r, w := io.Pipe()
	o.pipe, o.sent = w, make(chan error, 1)
	body := io.MultiReader(bytes.NewReader(o.mem.Bytes()), r) // which lets go of what it has read
	o.mem = bytes.Buffer{}
	go func() { // ends with the upload, which finish or close waits for
		err := o.upload(body)
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // nobody reads any more
		o.sent <- err
	}()
	return len(p), nil
}

// finish ends the segment and returns once it is in the store.
func (o *outlet) finish() error {
	if o.pipe == nil {
		return o.upload(bytes.NewReader(o.mem.Bytes()))
	}
	o.pipe.Close()
	err := <-o.sent
	o.sent = nil
	return err
}

// close gives up a segment that is not finished, and returns the error that its
// upload had already, if any.
func (o *outlet) close() error {
	if o.sent == nil {
		return nil
	}
	o.pipe.CloseWithError(errGivenUp)
	err := <-o.sent
	o.sent = nil
	if errors.Is(err, errGivenUp) {
		return nil
	}
	return err
}
