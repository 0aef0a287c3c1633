// Package wake tests that many users who wake at once, through several routers,
// are started exactly once each, and that what runs stays reachable while parts of
// the control plane go away and come back. Consul, Nomad and the routers are real
// processes and the job is the product's; only the task is Nomad's mock_driver, and
// one stub answers for all gateways.
package wake

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/test/rig"
)

const (
	// defaultUsers is how many wake at once; WAKE_USERS says otherwise.
	defaultUsers = 200
	routers      = 3
	// perUser is how many requests each user sends at once, to different routers.
	perUser = 3
	// wakeLimit is how long all of them may take on a busy machine of two cores.
	wakeLimit = 10 * time.Minute
	// registerLimit is how long Nomad may take to register them all in Consul.
	registerLimit = 4 * time.Minute
)

// client gives each request a connection of its own, as different clients would.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: wakeLimit}

// ask sends one request to a router; background marks it as one of a page, which
// must not wake anything.
func ask(r *rig.Router, user string, background bool) (said, int, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+r.Addr+"/u/"+user+"/who", nil)
	if err != nil {
		return said{}, 0, err
	}
	if background {
		req.Header.Set("Sec-Fetch-Mode", "cors")
	}
	resp, err := client.Do(req)
	if err != nil {
		return said{}, 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return said{}, 0, err
	}
	var s said
	if resp.StatusCode != http.StatusOK {
		return s, resp.StatusCode, fmt.Errorf("%s: %s", resp.Status, b)
	}
	return s, resp.StatusCode, json.Unmarshal(b, &s)
}

func users(t *testing.T) int {
	n := defaultUsers
	if v := os.Getenv("WAKE_USERS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatalf("WAKE_USERS: %v", err)
		}
	}
	return n
}

func name(n int) string { return "user-" + strconv.Itoa(n) }

func TestWake(t *testing.T) {
	n := users(t)
	c := start(t, routers, n)
	ports := c.wakeAll(t, n)
	c.onceEach(t, n)
	c.inTheirShards(t, n)

	live := c.routers[:routers-1]
	if n >= defaultUsers { // fewer do not stand in line for sure
		joined(t, live)
	}
	c.byHand(t, live)
	load := c.traffic(t, live, n, ports)
	t.Run("Consul restarts", func(t *testing.T) {
		defer load.report(t)()
		if err := c.consul.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		// A new user gets in while nothing can be registered.
		if s, _, err := ask(live[0], "during-outage", false); err != nil || s.User != "during-outage" {
			t.Errorf("a wake while Consul is away: %+v, %v", s, err)
		}
		if err := c.consul.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.allPass(t, n+1)
	})
	t.Run("Nomad restarts", func(t *testing.T) {
		defer load.report(t)()
		if err := c.nomad.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s, _, err := ask(live[1], "after-restart", false); err != nil || s.User != "after-restart" {
			t.Errorf("a wake after Nomad's restart: %+v, %v", s, err)
		}
		c.allPass(t, n+2)
	})
	load.stop()
	if asked, failed := load.asked.Load(), load.failed.Load(); failed > 0 || asked < 1000 {
		t.Errorf("%d of %d requests to running sandboxes failed; want none of at least 1000", failed, asked)
	}
	c.onceEach(t, n)
}

// wakeAll lets all users in through all routers at once, and kills one router when
// a third of them are in. It returns where each user's gateway is.
func (c *cluster) wakeAll(t *testing.T, n int) []int {
	t.Helper()
	begin := time.Now()
	var in atomic.Int32
	var mu sync.Mutex // guards ports and took
	ports, took := make([]int, n), []time.Duration{}
	third := make(chan struct{})
	var wg sync.WaitGroup
	for k := range perUser {
		for u := range n {
			wg.Go(func() {
				for at := u + k; ; at++ {
					s, status, err := ask(c.routers[at%routers], name(u), false)
					if err != nil && status == 0 && time.Since(begin) < wakeLimit {
						continue // a router was killed; the client goes to the next
					}
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err != nil:
						t.Errorf("%s: %v", name(u), err)
					case s.User != name(u):
						t.Errorf("%s was brought to %q", name(u), s.User)
					case ports[u] != 0 && ports[u] != s.Port:
						t.Errorf("%s has gateways at %d and %d", name(u), ports[u], s.Port)
					}
					ports[u] = s.Port
					took = append(took, time.Since(begin))
					if in.Add(1) == int32(n*perUser/3) {
						close(third)
					}
					return
				}
			})
		}
	}
	wg.Go(func() {
		select {
		case <-third:
			c.routers[routers-1].Kill()
		case <-time.After(wakeLimit):
			t.Error("not a third of the users got in")
		}
	})
	wg.Wait()
	slices.Sort(took)
	t.Logf("%d users, %d requests: half in after %s, all after %s", n, len(took), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	seen := map[int]int{}
	for u, p := range ports {
		if other, twice := seen[p]; twice {
			t.Errorf("%s and %s share port %d", name(u), name(other), p)
		}
		seen[p] = u
	}
	return ports
}

// joined wants some of those who stood in a router's line to have left it for a start
// that another router made: each user asked all routers, and has a place in each line.
func joined(t *testing.T, live []*rig.Router) {
	t.Helper()
	var n float64
	for _, r := range live {
		m, err := r.Scrape()
		if err != nil {
			t.Fatal(err)
		}
		n += m[`sandbox_router_wake_seconds_count{outcome="elsewhere"}`]
	}
	t.Logf("%.0f waits in line ended with another router's start", n)
	if n == 0 {
		t.Error("nobody in line joined another router's start")
	}
}

// onceEach wants one child per user, of all that ever were.
func (c *cluster) onceEach(t *testing.T, n int) {
	t.Helper()
	jobs, _, err := c.nomad.Client().Jobs().ListOptions(&nomad.JobListOptions{Fields: &nomad.JobListFields{Meta: true}}, &nomad.QueryOptions{Prefix: "openclaw/dispatch-"})
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]int{}
	for _, j := range jobs {
		of[j.Meta["user"]]++
	}
	for u := range n {
		if of[name(u)] != 1 {
			t.Errorf("%s was dispatched %d times", name(u), of[name(u)])
		}
	}
}

// inTheirShards wants each gateway registered under its user's name, and no other.
func (c *cluster) inTheirShards(t *testing.T, n int) {
	t.Helper()
	conf := catalog.DefaultConfig()
	conf.Shards = shards
	c.allPass(t, n)
	for s := range shards {
		for _, e := range c.entries(t, conf.Service+"-"+strconv.Itoa(s)) {
			if want := conf.ServiceOf(sandbox.User(e.Service.Meta["user"])); e.Service.Service != want {
				t.Errorf("%s is registered as %s, want %s", e.Service.Meta["user"], e.Service.Service, want)
			}
		}
	}
}

// byHand wants a sandbox that was dispatched without a router, and so without a
// shard, to be found and not started again.
func (c *cluster) byHand(t *testing.T, live []*rig.Router) {
	t.Helper()
	const user = "by-hand"
	if _, _, err := c.nomad.Client().Jobs().Dispatch("openclaw", map[string]string{"user": user}, nil, "", nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range live {
		if s, _, err := ask(r, user, false); err != nil || s.User != user {
			t.Errorf("%s: %+v, %v", user, s, err)
		}
	}
	plain := catalog.DefaultConfig().Service
	eventually(t, time.Minute, "registration under the plain name", func() bool { return len(c.entries(t, plain)) == 1 })
	jobs, _, err := c.nomad.Client().Jobs().ListOptions(nil, &nomad.QueryOptions{Prefix: "openclaw/dispatch-", Filter: `Meta.user == "` + user + `"`})
	if err != nil || len(jobs) != 1 {
		t.Errorf("%d children of %s, %v; want 1", len(jobs), user, err)
	}
}

// allPass waits until so many gateways pass: Nomad registers them anew after its own
// restart, and after Consul's.
func (c *cluster) allPass(t *testing.T, want int) {
	t.Helper()
	begin, got := time.Now(), 0
	defer func() {
		t.Logf("%d of %d gateways pass in Consul after %s", got, want, time.Since(begin).Round(time.Millisecond))
	}()
	eventually(t, registerLimit, "registration of all", func() bool { got = c.passing(t); return got == want })
}

// passing is how many gateways pass, under all names with a number.
func (c *cluster) passing(t *testing.T) (n int) {
	t.Helper()
	for s := range shards {
		n += len(c.entries(t, "openclaw-gateway-"+strconv.Itoa(s)))
	}
	return n
}

func (c *cluster) entries(t *testing.T, service string) []*consul.ServiceEntry {
	t.Helper()
	entries, _, err := c.consul.Client().Health().Service(service, "", true, nil)
	if err != nil {
		t.Logf("ask Consul: %v", err)
	}
	return entries
}

// load is requests to running sandboxes.
type load struct {
	asked, failed atomic.Int64
	end           chan struct{}
	wg            sync.WaitGroup
}

// report returns what logs the load since now.
func (l *load) report(t *testing.T) func() {
	begin, asked, failed := time.Now(), l.asked.Load(), l.failed.Load()
	return func() {
		t.Logf("%d requests to running sandboxes in %s, %d failed", l.asked.Load()-asked, time.Since(begin).Round(time.Second), l.failed.Load()-failed)
	}
}

func (l *load) stop() {
	close(l.end)
	l.wg.Wait()
}

// traffic sends requests to running sandboxes until it is stopped, half of them
// such as may not wake anything: for those, only the catalog counts.
func (c *cluster) traffic(t *testing.T, live []*rig.Router, n int, ports []int) *load {
	l := &load{end: make(chan struct{})}
	const workers = 4
	for w := range workers {
		l.wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond) // a load, not a benchmark
			defer tick.Stop()
			for at := w; ; at += workers {
				select {
				case <-l.end:
					return
				case <-tick.C:
				}
				u := at % n
				s, _, err := ask(live[at/workers%len(live)], name(u), at/workers/2%2 == 0)
				l.asked.Add(1)
				if err != nil || s.Port != ports[u] || s.User != name(u) {
					if l.failed.Add(1) <= 10 {
						t.Errorf("%s: %+v, %v; want port %d", name(u), s, err, ports[u])
					}
				}
			}
		})
	}
	return l
}
