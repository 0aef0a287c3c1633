package relay

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf8"
)

// frame makes a frame of any kind.
func frame(opcode byte, size int, masked bool) []byte {
	b := []byte{0x80 | opcode}
	switch {
	case size < 126:
		b = append(b, byte(size))
	case size < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(size))
	}
	if masked {
		b[1] |= 0x80
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, make([]byte, size)...)
}

// place of each byte of a stream, by a reference that has all of it at once.
type byteOf struct{ data, last bool }

func reference(b []byte) (all []byteOf, whole bool) {
	for len(b) > 0 {
		data := b[0]&0x0f < 8
		head := 2
		var size uint64
		if len(b) >= 2 {
			size = uint64(b[1] & 0x7f)
			if size == 126 {
				head = 4
			} else if size == 127 {
				head = 10
			}
			if len(b) >= head && head > 2 {
				size = 0
				for _, c := range b[2:head] {
					size = size<<8 | uint64(c)
				}
			}
			if b[1]&0x80 != 0 {
				head += 4
			}
		}
		if len(b) < head || uint64(len(b)-head) < size {
			for i := range b {
				all = append(all, byteOf{data: data && i > 0})
			}
			return all, false
		}
		n := head + int(size)
		for i := range n {
			all = append(all, byteOf{data && i > 0, i == n-1})
		}
		b = b[n:]
	}
	return all, true
}

// check compares the scanner with the reference, with cuts at the given places.
func check(t *testing.T, stream []byte, cut func(i int) bool) {
	t.Helper()
	want, whole := reference(stream)
	var s, stepped scanner
	from := 0
	for i := range stream {
		if i+1 < len(stream) && !cut(i+1) {
			continue
		}
		piece := stream[from : i+1]
		data := false
		for _, w := range want[from : i+1] {
			data = data || w.data
		}
		if got := s.pass(piece); got != data {
			t.Fatalf("bytes %d to %d of %x: data = %t, want %t", from, i, stream, got, data)
		}
		if s.boundary() != want[i].last {
			t.Fatalf("after byte %d of %x: boundary = %t", i, stream, s.boundary())
		}
		for at := from; at < i+1; {
			n, _, _ := stepped.frame(stream[at : i+1])
			if n == 0 {
				t.Fatalf("no step from byte %d of %x", at, stream)
			}
			for j := at; j < at+n-1; j++ {
				if want[j].last {
					t.Fatalf("a step from byte %d of %x goes over the end at %d", at, stream, j)
				}
			}
			if at += n; at < i+1 && !want[at-1].last {
				t.Fatalf("a step from byte %d of %x ends in a frame", at-n, stream)
			}
		}
		from = i + 1
	}
	if len(stream) > 0 && s.boundary() != whole || stepped != s {
		t.Fatalf("the end of %x: %+v, in steps %+v, whole %t", stream, s, stepped, whole)
	}
}

func TestScannerSplitAnywhere(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 300, 65535, 65536} {
		for _, masked := range []bool{false, true} {
			for _, opcode := range []byte{0, 1, 2, 8, 9, 10} {
				if size > 1000 && opcode != 2 && opcode != 9 {
					continue // no other head, and slow to compare
				}
				one := frame(opcode, size, masked)
				stream := append(append(bytes.Clone(one), frame(9, 3, masked)...), one...)
				if len(stream) < 1000 {
					for at := range stream {
						check(t, stream, func(i int) bool { return i == at })
					}
					check(t, stream, func(int) bool { return true })
				}
				for at := range 20 {
					check(t, stream, func(i int) bool { return i == at })
				}
			}
		}
	}
}

func FuzzScanner(f *testing.F) {
	f.Add(frame(1, 5, true), uint64(1))
	f.Add(append(frame(2, 200, false), frame(8, 2, false)...), uint64(0xff0f))
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}, uint64(0xaaaa))
	f.Fuzz(func(t *testing.T, stream []byte, cuts uint64) {
		check(t, stream, func(i int) bool { return cuts>>(i%64)&1 != 0 })
	})
}

func TestCloseFrame(t *testing.T) {
	if got, want := closeFrame(1012, ""), []byte{0x88, 2, 0x03, 0xf4}; !bytes.Equal(got, want) {
		t.Errorf("1012 = %x, want %x", got, want)
	}
	long := closeFrame(1001, strings.Repeat("é", 100))
	if size := int(long[1]); size != len(long)-2 || size > 125 || !utf8.Valid(long[4:]) {
		t.Errorf("a long reason gives %d bytes in a frame of %d, valid: %t", len(long)-2, size, utf8.Valid(long[4:]))
	}
}
