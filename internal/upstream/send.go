package upstream

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lastWrite is how long the end of an answer waits for the write of the body's
	// last piece to return, before the connection is given up.
	lastWrite = 50 * time.Millisecond
	// linger is how long net/http may read what a client still sends of a body that
	// is no longer wanted. To close at once, with unread bytes in the kernel, would
	// reset the connection and could lose the answer.
	linger = 500 * time.Millisecond
	// stalled is how long a read of such a body may wait before it is given up.
	stalled = 20 * time.Millisecond
	// chunkHead is the room for a chunk's size in hexadecimal digits, and a CRLF.
	chunkHead = 10
	// smallRoom is the least room behind a head that is worth reading a body into.
	smallRoom = 4 << 10
)

// sender sends a request with a body while the goroutine that made it reads the
// answer, which may come before the body is sent. Who made it calls end, always.
type sender struct {
	c       *conn
	r       *http.Request
	w       http.ResponseWriter
	client  *Client
	buf     []byte // begins with the head
	head    int    // the head's length
	framing framing

	goOn chan struct{} // closed: the gateway wants the body
	told bool          // goOn is closed; only the reader of the answer uses it
	stop chan struct{}
	sent chan struct{} // closed when the goroutine ends
	read atomic.Bool   // the client's body was read to its end
	err  error         // valid after sent

	// mu orders what both goroutines write to the client before the answer's head,
	// and guards answered.
	mu       sync.Mutex
	answered bool
}

func (cl *Client) send(c *conn, w http.ResponseWriter, r *http.Request, buf []byte, head int, f framing) *sender {
	// net/http would not let the answer's head out before the body is read, and a
	// gateway may answer early. Not to have it means that there is no such rule.
	http.NewResponseController(w).EnableFullDuplex()
	s := &sender{c: c, r: r, w: w, client: cl, buf: buf, head: head, framing: f,
		goOn: make(chan struct{}), stop: make(chan struct{}), sent: make(chan struct{})}
	go s.run()
	return s
}

func (s *sender) run() {
	defer close(s.sent)
	s.err = s.send()
	var broken *BodyError
	switch {
	case errors.As(s.err, &broken):
		s.c.Close() // the gateway must not take the part for the whole
	case s.err == nil && s.client.o.HeadTimeout > 0:
		s.mu.Lock()
		if !s.answered {
			s.c.SetReadDeadline(time.Now().Add(s.client.o.HeadTimeout))
		}
		s.mu.Unlock()
	}
}

func (s *sender) send() error {
	// The head goes out by itself if the body may take its time. A body of known
	// length is mostly there already, and one write is cheaper than two.
	if s.framing.expect || s.framing.length < 0 || len(s.buf)-s.head < smallRoom {
		if _, err := s.c.Write(s.buf[:s.head]); err != nil {
			return err
		}
		s.head = 0
		if len(s.buf) < bufferSize {
			s.buf = make([]byte, bufferSize)
		}
	}
	if s.framing.expect {
		if err := s.await(); err != nil {
			return err
		}
	}
	if s.framing.length < 0 {
		return s.sendChunks()
	}
	return s.sendLength(s.framing.length)
}

// await holds the body back until the gateway wants it, or for as long as it may
// take to say so; then it tells the client to send it.
func (s *sender) await() error {
	t := time.NewTimer(s.client.o.ContinueTimeout)
	defer t.Stop()
	select {
	case <-s.goOn:
	case <-t.C:
	case <-s.stop:
		return errNotWanted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answered {
		return errNotWanted
	}
	// The first read of the body would say so as well, but beside other
	// informational answers.
	informational(s.w, http.StatusContinue, nil)
	return nil
}

// sendLength sends left bytes.
func (s *sender) sendLength(left int64) error {
	at := s.head
	for left > 0 {
		n, err := s.r.Body.Read(s.buf[at:])
		if int64(n) > left {
			return &BodyError{errors.New("more than its Content-Length")}
		}
		left -= int64(n)
		if left == 0 {
			s.read.Store(true) // before the gateway can know
		} else if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return &BodyError{err}
		}
		if at+n > 0 {
			if _, err := s.c.Write(s.buf[:at+n]); err != nil {
				return err
			}
		}
		at = 0
	}
	return nil
}

// sendChunks sends the body in chunks as they come, and the trailers.
func (s *sender) sendChunks() error {
	for {
		n, err := s.r.Body.Read(s.buf[chunkHead : len(s.buf)-2])
		if err != nil && err != io.EOF {
			return &BodyError{err}
		}
		var size [chunkHead]byte
		var piece []byte
		if n > 0 {
			head := append(strconv.AppendInt(size[:0], int64(n), 16), '\r', '\n')
			piece = s.buf[chunkHead-len(head) : chunkHead+n]
			copy(piece, head)
			piece = append(piece, '\r', '\n')
		}
		if err == io.EOF {
			s.read.Store(true)
			if piece, err = s.appendTrailers(append(piece, '0', '\r', '\n')); err != nil {
				return err
			}
			_, err = s.c.Write(piece)
			return err
		}
		if n > 0 {
			if _, err := s.c.Write(piece); err != nil {
				return err
			}
		}
	}
}

// appendTrailers ends a chunked body. net/http does not look at trailers' values.
func (s *sender) appendTrailers(b []byte) ([]byte, error) {
	for _, name := range s.framing.trailers {
		for _, v := range s.r.Trailer[name] {
			if !validValue(v) {
				return nil, &BodyError{errors.New("a trailer's value has a control character")}
			}
			b = appendField(b, name, v)
		}
	}
	return append(b, '\r', '\n'), nil
}

// proceed is called when the gateway wants the body.
func (s *sender) proceed() {
	if !s.told {
		s.told = true
		close(s.goOn)
	}
}

// answer is called before the answer's head is used; whoever waits for a 100 then
// sends no body.
func (s *sender) answer() {
	s.mu.Lock()
	s.answered = true
	s.mu.Unlock()
}

// end stops the sender, waits for it and reports whether the request was sent as a
// whole. If it was not, the connection is closed. well says that the answer ended
// well, so that a last write is worth a moment.
func (s *sender) end(well bool) bool {
	if well && s.read.Load() {
		t := time.NewTimer(lastWrite)
		select {
		case <-s.sent:
		case <-t.C:
		}
		t.Stop()
	}
	select {
	case <-s.sent:
	default:
		s.halt()
	}
	if s.err != nil {
		s.c.Close()
	}
	return s.err == nil
}

// halt frees the goroutine from whatever it waits for, and waits for it.
func (s *sender) halt() {
	close(s.stop)
	s.c.Close()
	if client := http.NewResponseController(s.w); !s.read.Load() {
		// If bytes still come, the closed connection ends the goroutine. A deadline in
		// the past could end it within a chunk: then net/http can not read on, and
		// resets the connection.
		if client.SetReadDeadline(time.Now().Add(stalled)) != nil {
			s.r.Body.Close() // not a connection's
		}
		defer func() { client.SetReadDeadline(time.Now().Add(linger)) }()
	}
	<-s.sent
	if s.err == nil {
		s.err = errNotWanted // the connection is closed in any case
	}
}
