package relay

import (
	"encoding/binary"
	"unicode/utf8"
)

// opcodes of RFC 6455 section 5.2; from 8 on they are control frames.
const (
	opClose   = 0x8
	opControl = 0x8
)

// maxReason is what a close frame has left beside its code (RFC 6455 section 5.5).
const maxReason = 123

// closeFrame is the frame of a server, which does not mask.
func closeFrame(code uint16, reason string) []byte {
	for len(reason) > maxReason {
		_, last := utf8.DecodeLastRuneInString(reason) // a reason must stay valid UTF-8
		reason = reason[:len(reason)-last]
	}
	b := make([]byte, 0, 4+len(reason))
	b = append(b, 0x80|opClose, byte(2+len(reason)))
	return append(binary.BigEndian.AppendUint16(b, code), reason...)
}

// scanner follows a stream of WebSocket frames (RFC 6455 section 5.2). It keeps
// no bytes, so that a stream may be cut anywhere. Its zero value is a boundary.
type scanner struct {
	left    uint64 // payload still to come; its length, while that is being read
	opcode  uint8  // of the frame
	at      place  // in the frame
	lengths uint8  // bytes of the extended length still to come
	masks   uint8  // bytes of the mask still to come
	ended   bool   // a close frame began: nothing may come after it
	mask    [4]byte
}

// Head is how many bytes of a message Pair.Activity gets to see at most.
const Head = 192

type place uint8

const (
	atStart place = iota // before a frame
	atLength
	inHead // in the extended length or the mask
	inPayload
)

// boundary tells whether the last byte ended a frame.
func (s *scanner) boundary() bool { return s.at == atStart }

// payload is how many bytes of the frame's payload are still to come, 0 if its
// head is not over.
func (s *scanner) payload() uint64 {
	if s.at == inPayload {
		return s.left
	}
	return 0
}

// skip follows n bytes of payload, of which so many must be to come.
func (s *scanner) skip(n uint64) {
	if s.left -= n; s.left == 0 {
		s.at = atStart
	}
}

// pass follows b and tells whether bytes of a data frame were among it.
func (s *scanner) pass(b []byte) (data bool) {
	for len(b) > 0 {
		n, _, of := s.frame(b)
		data, b = data || of, b[n:]
	}
	return data
}

// hear is pass for what a client sends, which masks: of each data frame that begins
// it tells the first bytes of the payload, as far as b has them, unmasked in buf.
func (s *scanner) hear(b []byte, buf *[Head]byte, said func(head []byte)) {
	for len(b) > 0 {
		n, body, _ := s.frame(b)
		if body >= 0 && s.opcode < opControl {
			head := buf[:copy(buf[:], b[body:n])]
			for i := range head {
				head[i] ^= s.mask[i%len(s.mask)]
			}
			said(head)
		}
		b = b[n:]
	}
}

// frame follows b to the end of the frame, or of b, and returns how far that was,
// and where the payload began; -1 if it did not.
func (s *scanner) frame(b []byte) (n, body int, data bool) {
	body = -1
	for n < len(b) {
		switch s.at {
		case atStart:
			s.opcode, s.at = b[n]&0x0f, atLength
			s.ended = s.ended || s.opcode == opClose
		case atLength:
			s.left, s.lengths, s.masks, s.mask = 0, 0, 0, [4]byte{}
			switch l := b[n] & 0x7f; l {
			case 126:
				s.lengths = 2
			case 127:
				s.lengths = 8
			default:
				s.left = uint64(l)
			}
			if b[n]&0x80 != 0 {
				s.masks = 4
			}
			s.at = inHead
		case inHead:
			if s.lengths > 0 {
				s.left, s.lengths = s.left<<8|uint64(b[n]), s.lengths-1
			} else {
				s.mask[4-s.masks] = b[n]
				s.masks--
			}
		case inPayload:
			rest := min(s.left, uint64(len(b)-n))
			s.left -= rest
			n += int(rest) - 1
		}
		n++
		data = data || s.at >= inHead && s.opcode < opControl
		if s.at == inHead && s.lengths == 0 && s.masks == 0 {
			s.at, body = inPayload, n
		}
		if s.at == inPayload && s.left == 0 {
			s.at = atStart
			break
		}
	}
	return n, body, data
}
