package chat

import (
	"bytes"
	"strings"
)

// Routine tells by the first bytes of a message to a gateway whether a page sends it
// by itself: what the Control UI shows, it asks for when it opens, and again from
// time to time for as long as the tab is there (OpenClaw 2026.9.6: sessions every 30 s,
// the agent every minute). What does something is none, and neither is what can not be
// told.
func Routine(head []byte) bool {
	method, ok := methodOf(head)
	if !ok {
		return false
	}
	last := method[strings.LastIndexByte(method, '.')+1:]
	return asks[last] || routines[method]
}

// methodOf finds the method in {"type":"req","id":"…","method":"…", which is how
// clients begin a request. One that puts its parameters first is not understood.
func methodOf(head []byte) (string, bool) {
	before, rest, ok := bytes.Cut(head, []byte(`"method"`))
	if !ok || bytes.Contains(before, []byte(`"params"`)) {
		return "", false
	}
	rest = bytes.TrimLeft(rest, " :")
	name, ok := bytes.CutPrefix(rest, []byte(`"`))
	if !ok {
		return "", false
	}
	name, _, ok = bytes.Cut(name, []byte(`"`))
	return string(name), ok
}

// asks are the last parts of methods that only ask, or are told from then on.
var asks = set("list", "get", "status", "state", "info", "history", "describe", "metadata", "subscribe", "unsubscribe", "catalog", "schema", "tail",
	"health", "presence", "cost", "lookup", "startup", "defaults", "branches", "preview", "authStatus", "monitors", "lanes", "providers", "personas", "runs", "options",
	"stability", "config", "bins", "checks", "categories", "listAuthLinks", "listModelAccounts", "listChannelIdentities", "historyStatus", "uiDescriptors", "view", "detail")

// routines are further methods that a page uses without its person.
var routines = set("connect", "health", "status", "last-heartbeat", "system-presence", "sessions.viewers.set", "sessions.observer.visibility", "plugin.surface.refresh")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}
