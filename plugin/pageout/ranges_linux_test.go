package pageout

import (
	"slices"
	"strings"
	"testing"
)

func TestParseMaps(t *testing.T) {
	const maps = `00400000-00452000 r-xp 00000000 08:02 173521                             /usr/bin/node
00e03000-00e24000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0040000000 ---p 00000000 00:00 0
7f35320a8000-7f35320aa000 rw-s 00000000 00:01 1032                       /a b\012 (deleted)
7ffd3f1c0000-7ffd3f1e1000 rw-p 00000000 00:00 0                          [stack]
7ffd3f1f0000-7ffd3f1f4000 r--p 00000000 00:00 0                          [vvar]
7ffd3f1f4000-7ffd3f1f6000 r--p 00000000 00:00 0                          [vvar_vclock]
7ffd3f1f6000-7ffd3f1f8000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`
	got, err := parseMaps(strings.NewReader(maps))
	want := []span{{0x400000, 0x52000}, {0xe03000, 0x21000}, {0x7f35320a8000, 0x2000}, {0x7ffd3f1c0000, 0x21000}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %x, %v; want %x", got, err, want)
	}
	for _, bad := range []string{"x", "zz-11 rw-p 0 0:0 0", "20-10 rw-p 0 0:0 0", "10 rw-p 0 0:0 0", "10-20 rw-p 0 0:0 0"} {
		if spans, err := parseMaps(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken for %x", bad, spans)
		}
	}
}

func TestBatches(t *testing.T) {
	collect := func(spans []span, most uintptr) (all [][]span) {
		for b := range batches(spans, most) {
			all = append(all, slices.Clone(b))
		}
		return all
	}
	got := collect([]span{{100, 10}, {200, 25}, {300, 5}}, 20)
	want := [][]span{{{100, 10}, {200, 10}}, {{210, 15}, {300, 5}}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v, want %v", got, want)
	}
	many := collect(slices.Repeat([]span{{0, 1}}, 2*iovMax+1), 1<<20)
	if len(many) != 3 || len(many[0]) != iovMax || len(many[2]) != 1 {
		t.Errorf("%d batches, the first of %d", len(many), len(many[0]))
	}
	if none := collect(nil, 20); none != nil {
		t.Errorf("batches of nothing: %v", none)
	}
}

func TestRest(t *testing.T) {
	spans := []span{{100, 10}, {200, 20}}
	for n, want := range map[uintptr][]span{4: {{104, 6}, {200, 20}}, 10: {{200, 20}}, 15: {{205, 15}}, 30: nil} {
		if got := rest(spans, n); !slices.Equal(got, want) {
			t.Errorf("after %d: %v, want %v", n, got, want)
		}
	}
	if spans[0] != (span{100, 10}) {
		t.Error("the caller's spans were changed")
	}
}
