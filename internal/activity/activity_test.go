package activity

import (
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	consul "github.com/hashicorp/consul/api"
)

func TestTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTracker()
		begin := time.Now()
		tr.Enter("alice", Call)
		tr.Open("alice")
		time.Sleep(time.Minute)
		if m := tr.Mark("alice"); m.Clients != 2 || m.Working != 1 || m.Waiting != 1 || !m.Last.Equal(begin) || m.Kind != Call {
			t.Errorf("while a call and a WebSocket are open: %+v", m)
		}
		tr.Leave("alice", Call)
		answered := time.Now()
		time.Sleep(time.Minute)
		tr.Close("alice")
		if m := tr.Mark("alice"); m != (Mark{Last: answered, Kind: Call, Left: time.Now()}) {
			t.Errorf("after both: %+v, want the answer as the last activity, and the end of the WebSocket as the last client's", m)
		}
		// What a page does by itself is no activity, but somebody is there.
		time.Sleep(time.Minute)
		tr.Enter("alice", None)
		tr.Leave("alice", None)
		tr.Note("alice", None)
		if m := tr.Mark("alice"); !m.Last.Equal(answered) || !m.Left.Equal(time.Now()) {
			t.Errorf("after a background request: %+v", m)
		}
		tr.Note("alice", Message)
		if m := tr.Mark("alice"); !m.Last.Equal(time.Now()) || m.Kind != Message {
			t.Errorf("after a message: %+v", m)
		}
		time.Sleep(keepFor + time.Second)
		if marks, _ := tr.copyOf(bucketOf("alice")); len(marks) != 0 || tr.Mark("alice") != (Mark{}) {
			t.Errorf("a day later alice is remembered: %v", marks)
		}
	})
}

// written is a bucket of another router: the key and what it has.
func written(name, user, text string, index uint64) *consul.KVPair {
	return &consul.KVPair{Key: "openclaw/activity/" + strconv.Itoa(bucketOf("alice")) + "/" + name, ModifyIndex: index, Value: []byte(`{"at":` + user + `,"users":{"alice":` + text + `}}`)}
}

func beat(name string, index uint64) *consul.KVPair {
	return &consul.KVPair{Key: "openclaw/activity/beat/" + name, ModifyIndex: index, Session: "s-" + name}
}

// However wrong another router's clock is, what it says is never taken to be older
// than it is, once this router has seen it being written; and what was there before
// is at most so much older as clocks may be apart.
func TestClocks(t *testing.T) {
	for name, c := range map[string]struct {
		skew time.Duration // of the other's clock
		old  time.Duration // since it wrote, when this router begins to read
		live bool          // this router reads before the other writes
		want time.Duration // how long ago alice's activity is said to be, at most and about
	}{
		"as it should be":               {0, 0, true, 10 * time.Second},
		"a minute ahead":                {time.Minute, 0, true, 10 * time.Second},
		"a minute behind":               {-time.Minute, 0, true, 10 * time.Second},
		"an hour behind, seen live":     {-time.Hour, 0, true, 10 * time.Second},
		"old":                           {0, 20 * time.Minute, false, 20*time.Minute + 10*time.Second - 2*time.Minute},
		"old, by a clock ahead":         {time.Minute, 20 * time.Minute, false, 20*time.Minute + 10*time.Second - 3*time.Minute},
		"old, by a clock behind":        {-time.Minute, 20 * time.Minute, false, 20*time.Minute + 10*time.Second - time.Minute},
		"just before, by a clock ahead": {time.Minute, time.Second, false, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := DefaultConfig()
				config.Name = "me"
				b := NewBoard(config, nil, NewTracker(), slog.New(slog.DiscardHandler))
				time.Sleep(24 * time.Hour) // away from the clock's zero
				first := written("you", strconv.FormatInt(time.Now().Add(c.skew).UnixMilli(), 10), `{"last":3600000,"kind":2,"clients":1}`, 5)
				if c.live {
					b.merge(consul.KVPairs{beat("you", 6), first}, true)
				}
				time.Sleep(time.Minute)
				pair := written("you", strconv.FormatInt(time.Now().Add(c.skew).UnixMilli(), 10), `{"last":10000,"kind":2,"clients":1}`, 7)
				time.Sleep(c.old)
				v, gone := b.merge(consul.KVPairs{beat("you", 8), pair}, true)
				m := v.Mark("alice")
				if ago := time.Since(m.Last); ago != c.want || m.Kind != Call || m.Clients != 1 || len(gone) != 0 || v.Routers != 2 {
					t.Errorf("%s ago, %+v, %d routers, gone %v; want %s ago", ago, m, v.Routers, gone, c.want)
				}
				if true := 10*time.Second + c.old; time.Since(m.Last) > true {
					t.Errorf("said to be %s ago, and is %s: alice would be stopped too early", time.Since(m.Last), true)
				}
				// Read again and again, it grows as old as time passes here.
				time.Sleep(5 * time.Minute)
				again, _ := b.merge(consul.KVPairs{beat("you", 9), pair}, true)
				if ago := time.Since(again.Mark("alice").Last); ago != c.want+5*time.Minute {
					t.Errorf("five minutes later: %s ago, want %s", ago, c.want+5*time.Minute)
				}
			})
		})
	}
}

// A router that is gone leaves its clients' activity to who reads it first, as of
// now for those who were connected: nobody can say what they did in the end.
func TestRouterThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := DefaultConfig()
		config.Name = "me"
		tr := NewTracker()
		b := NewBoard(config, nil, tr, slog.New(slog.DiscardHandler))
		time.Sleep(24 * time.Hour)
		at := strconv.FormatInt(time.Now().UnixMilli(), 10)
		connected := written("you", at, `{"last":600000,"kind":3,"left":700000,"clients":1}`, 5)
		v, _ := b.merge(consul.KVPairs{beat("you", 6), connected}, true)
		if m := v.Mark("alice"); m.Clients != 1 {
			t.Fatalf("while it lives: %+v", m)
		}
		time.Sleep(time.Minute)
		v, gone := b.merge(consul.KVPairs{connected}, true) // no sign of life any more
		if len(gone) != 1 || gone[0] != connected || v.Routers != 1 {
			t.Errorf("gone: %v, %d routers; want its bucket, and one router", gone, v.Routers)
		}
		want := Mark{Last: time.Now(), Kind: Message, Left: time.Now()}
		if m := v.Mark("alice"); m != want || tr.Mark("alice") != want {
			t.Errorf("%+v, and here %+v; want %+v", m, tr.Mark("alice"), want)
		}
	})
}

// What nobody can read, and keys of others, harm nobody.
func TestStrangeKeys(t *testing.T) {
	config := DefaultConfig()
	config.Name = "me"
	b := NewBoard(config, nil, NewTracker(), slog.New(slog.DiscardHandler))
	v, gone := b.merge(consul.KVPairs{beat("you", 1), {Key: "openclaw/activity/"}, {Key: "openclaw/activity/3/you", Value: []byte("{")},
		{Key: "openclaw/activity/beat/dead"}, {Key: "openclaw/activity/x/you", Value: []byte(`{"users":{"../x":{"clients":-7}}}`)}}, true)
	if v.Routers != 2 || len(gone) != 0 || v.Mark("alice") != (Mark{}) {
		t.Errorf("%d routers, gone %v, %+v", v.Routers, gone, v.Mark("alice"))
	}
}

func BenchmarkNote(b *testing.B) {
	tr := NewTracker()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			tr.Note("alice", Message)
		}
	})
}
