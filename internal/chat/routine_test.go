package chat

import "testing"

func TestRoutine(t *testing.T) {
	request := func(method string) string {
		return `{"type":"req","id":"43:137e1c15-b8ba-4da7-95f3-293a352948d1","method":"` + method + `","params":{"agentId":"main"`
	}
	// What an open tab of the Control UI was seen to send without anybody's doing.
	for _, method := range []string{"connect", "sessions.catalog.list", "agent.identity.get", "tasks.list", "sessions.list", "sessions.describe",
		"controlUi.sessionPullRequests.subscribe", "users.prefs.get", "update.status", "taskSuggestions.list", "talk.catalog", "system.info", "sessions.viewers.set",
		"sessions.subscribe", "sessions.observer.visibility", "sessions.messages.subscribe", "sessions.groups.list", "sessions.groups.defaults", "sessions.companion.state",
		"sessions.branches.list", "session.discussion.info", "question.list", "projects.list", "progressCard.get", "plugins.controlUi.list", "plugin.surface.refresh",
		"plugin.approval.list", "openclaw.approval.list", "models.authStatus", "mentions.list", "exec.approval.list", "cron.status", "cron.list", "config.get", "chat.startup",
		"chat.metadata", "board.get", "agents.list", "health", "logs.tail", "chat.history"} {
		if !Routine([]byte(request(method))) {
			t.Errorf("%s is taken for somebody's doing", method)
		}
	}
	for _, method := range []string{"chat.send", "chat.abort", "chat.typing", "sessions.patch", "sessions.create", "sessions.reset", "cron.add", "cron.run", "config.set",
		"exec.approval.resolve", "wake", "agent", "send", "terminal.input", "talk.speak", "tools.invoke", "some.new.method", ""} {
		if Routine([]byte(request(method))) {
			t.Errorf("%s is taken for a page's own", method)
		}
	}
	for _, head := range []string{"", "hello", `{"type":"req","id":"1","params":{"x":1},"method":"sessions.list"}`, `{"type":"req","method":`, `{"method":7}`, `{"method":"sessions.li`} {
		if Routine([]byte(head)) {
			t.Errorf("%q is taken for a page's own", head)
		}
	}
	if !Routine([]byte(`{ "type": "req", "id": "1", "method": "sessions.list", "params": {} }`)) {
		t.Error("with spaces it is not understood")
	}
}

func BenchmarkRoutine(b *testing.B) {
	head := []byte(`{"type":"req","id":"43:137e1c15-b8ba-4da7-95f3-293a352948d1","method":"sessions.catalog.list","params":{"agentId":"main","limitPerHost":40,"progressId":"0f149172-fd83-4290-b17e-fe81f`)
	for b.Loop() {
		Routine(head)
	}
}
