package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/activity"
	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/config"
	"openclaw-sandbox/internal/idle"
	"openclaw-sandbox/internal/launch"
	"openclaw-sandbox/internal/proxy"
	"openclaw-sandbox/internal/sandbox"
)

// watcher hears what clients do, and wakes a frozen sandbox whose WebSocket has
// something to say.
type watcher struct {
	*activity.Tracker
	catalog  *catalog.Catalog
	launcher *launch.Launcher
}

// kinds are the proxy's, as they count.
var kinds = [...]activity.Kind{proxy.KindCall: activity.Call, proxy.KindPage: activity.Page, proxy.KindBackground: activity.None, proxy.KindMessage: activity.Message}

func (w *watcher) active(user string, k proxy.Kind) {
	u := sandbox.User(user)
	w.Note(u, kinds[k])
	if k != proxy.KindMessage {
		return // a request finds out for itself
	}
	if _, state, ok := w.catalog.Dormant(u); ok && state == catalog.Asleep {
		w.launcher.Wake(u, false)
	}
}

func (w *watcher) socket(user string, open bool) {
	if open {
		w.Open(sandbox.User(user))
	} else {
		w.Close(sandbox.User(user))
	}
}

// waits tells whether somebody waits for an answer of the user's gateway.
func (w *watcher) waits(u sandbox.User) bool { return w.Mark(u).Waiting > 0 }

// ours are the gateways of the routers' own job: the same name in Consul may have
// those of others, whose users do not come here.
type ours struct {
	*catalog.Catalog
	children string // what the ids of the job's children begin with
}

func (o ours) Running(yield func(catalog.Instance, catalog.State) bool) {
	for i, s := range o.Catalog.Running {
		if strings.HasPrefix(i.Job, o.children) && !yield(i, s) {
			return
		}
	}
}

// keeper is the launcher as the reaper wants it.
type keeper struct{ *launch.Launcher }

func (k keeper) Wake(u sandbox.User) { k.Launcher.Wake(u, false) }

// idlers are the parts that look after sandboxes that nobody uses.
type idlers struct {
	board  *activity.Board
	reaper *idle.Reaper
	books  idle.Books
}

func newIdlers(c config.Config, cc *consul.Client, w *watcher, px *proxy.Proxy, m *metrics, log *slog.Logger) idlers {
	told := activity.DefaultConfig()
	told.Name, told.Period, told.Prefix = rand.Text(), c.Idle.Period, c.Job+"/activity/"
	board := activity.NewBoard(told, cc, w.Tracker, log)
	reaps := idle.DefaultConfig()
	reaps.Terms, reaps.Every, reaps.Job = reaping(c), c.Idle.Period, c.Job
	ask := idle.Gateways{Domain: c.Domain, Identify: px.SetIdentity, Dial: px.Dial}
	reaper := idle.New(reaps, cc, board, ours{w.catalog, c.Job + "/"}, keeper{w.launcher}, ask, log, m.reaped)
	return idlers{board: board, reaper: reaper, books: idle.NewBooks(c.Job, reaper.Policy, cc, board)}
}

// reaping is what c says of idle sandboxes, as far as it may change.
func reaping(c config.Config) idle.Terms {
	return idle.Terms{Policy: idle.Policy{FreezeAfter: c.Idle.FreezeAfter, StopAfter: c.Idle.StopAfter}, WakeAhead: c.Idle.WakeAhead}
}

// run follows ctx; the board tells the others at the end that its clients are gone.
func (i idlers) run(ctx context.Context, goes func(func() error)) {
	goes(func() error { return ignore(i.board.Run(ctx), context.Canceled) })
	goes(func() error { return ignore(i.reaper.Run(ctx), context.Canceled) })
}
