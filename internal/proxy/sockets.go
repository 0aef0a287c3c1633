package proxy

import "openclaw-sandbox/internal/relay"

// sockets are a user's WebSockets, all of one generation. Another generation ends
// them: what is said to a gateway that has a successor is lost, since only the
// newest run of a user can save.
type sockets struct {
	generation string
	open       map[*socket]bool
}

// socket is a WebSocket that is relayed.
type socket struct {
	target  Target
	session relay.Session // set before it is among the open ones
	over    bool          // it has ended; Proxy.mu guards it
}

// restart tells the client to connect again, to the gateway that there is then.
func (s *socket) restart() { s.session.CloseWith(restartCode, "") }

// joined takes note of a socket whose relay was started.
func (p *Proxy) joined(s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.over {
		return
	}
	// Its upgrade made the pool, or found it: another one now is of a later request.
	if now, ok := p.pools[s.target.User]; ok && now.generation != s.target.Generation {
		s.restart()
		return
	}
	of := p.sockets[s.target.User]
	if of == nil || of.generation != s.target.Generation {
		of = &sockets{generation: s.target.Generation, open: map[*socket]bool{}}
		p.sockets[s.target.User] = of
	}
	of.open[s] = true
}

// left forgets a socket that has ended.
func (p *Proxy) left(s *socket) {
	p.socket(s.target.User, false)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.over = true
	p.drop(s.target.User)
	of := p.sockets[s.target.User]
	if of == nil || !of.open[s] {
		return
	}
	if delete(of.open, s); len(of.open) == 0 {
		delete(p.sockets, s.target.User)
	}
}

// kindOf is what a message over a WebSocket is, by its first bytes.
func (p *Proxy) kindOf(head []byte) Kind {
	if p.config.Routine != nil && p.config.Routine(head) {
		return KindBackground
	}
	return KindMessage
}

// socket tells Config.Socket of a WebSocket's begin or end.
func (p *Proxy) socket(user string, open bool) {
	if p.config.Socket != nil {
		p.config.Socket(user, open)
	}
}

// endOthers ends the user's sockets of other generations than t's. The caller holds
// p.mu.
func (p *Proxy) endOthers(t Target) {
	of := p.sockets[t.User]
	if of == nil || of.generation == t.Generation {
		return
	}
	delete(p.sockets, t.User)
	for s := range of.open {
		s.restart()
	}
}

// hold counts an upgrade of t's user, unless there are as many as allowed.
func (p *Proxy) hold(t Target) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.MaxSockets > 0 && p.held[t.User] >= t.MaxSockets {
		return false
	}
	p.held[t.User]++
	return true
}

// release takes back what hold counted.
func (p *Proxy) release(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(user)
}

// drop is release for a caller who holds p.mu.
func (p *Proxy) drop(user string) {
	if p.held[user]--; p.held[user] <= 0 {
		delete(p.held, user)
	}
}
