package chat

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
)

// turn is a chat event.
type turn struct {
	RunID        string  `json:"runId"`
	State        string  `json:"state"`
	DeltaText    string  `json:"deltaText"`
	ErrorMessage string  `json:"errorMessage"`
	Message      content `json:"message"`
}

// content is a message's, in the shape of the gateway's answers: text, or parts.
type content struct {
	Parts json.RawMessage `json:"content"`
}

func (c content) text() string {
	var s string
	if json.Unmarshal(c.Parts, &s) == nil {
		return s
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(c.Parts, &parts) != nil {
		return ""
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
	}
	return b.String()
}

// over says whether a turn in this state has ended.
func (t turn) over() bool { return t.State == "final" || t.State == "aborted" || t.State == "error" }

// Say sends a message to a session ("" for DefaultSession) and returns the whole
// reply. delta (may be nil) gets each piece as it comes, and "" now and then as a
// sign of life; its error ends the conversation. A message that meets a running
// turn waits for its own. Say returns a *TurnError if the turn failed, ErrRefused
// if there was none, or ErrBroken.
func (c *Client) Say(session, message string, delta func(text string) error) (string, error) {
	if session == "" {
		session = DefaultSession
	}
	run := rand.Text()
	c.early, c.earlyBytes, c.talking = nil, 0, true
	defer func() { c.talking = false }()
	if _, err := c.call("chat.send", map[string]any{"sessionKey": session, "message": message, "idempotencyKey": run}); err != nil {
		return "", err
	}
	began := false
	for {
		t, err := c.next(delta)
		switch {
		case err != nil:
			return "", err
		case t.RunID != run:
			continue
		case t.State == "delta" && t.DeltaText != "" && delta != nil:
			if err := delta(t.DeltaText); err != nil {
				return "", err
			}
		case t.State == "final" && !began && len(t.Message.Parts) == 0:
			return c.queued(session, run, delta)
		case t.State == "final":
			return t.Message.text(), nil
		case t.over():
			return "", &TurnError{State: t.State, Message: Text(t.ErrorMessage)}
		}
		began = true
	}
}

// queued follows a message that met a running turn. The gateway ends its run at
// once, without a word, and answers it in the running turn or in one after that,
// whose id nobody is told. So the transcript is asked, after each turn that ends.
func (c *Client) queued(session, run string, delta func(text string) error) (string, error) {
	for {
		reply, err := c.answerTo(session, run)
		if err != nil {
			return "", err
		}
		if reply != "" {
			if delta != nil {
				err = delta(reply)
			}
			return reply, err
		}
		for over := false; !over; {
			t, err := c.next(delta)
			if err != nil {
				return "", err
			}
			over = t.over()
		}
	}
}

// transcriptTail is how many of a session's last messages are looked through for
// an answer; each turn of an agent adds some.
const transcriptTail = 100

// answerTo looks an answer up in the transcript: what the assistant said last
// between the message of that run and the user's next one. "" if there is none yet.
func (c *Client) answerTo(session, run string) (string, error) {
	raw, err := c.call("chat.history", map[string]any{"sessionKey": session, "limit": transcriptTail})
	if err != nil {
		return "", err
	}
	var history struct {
		Messages []struct {
			Role           string `json:"role"`
			IdempotencyKey string `json:"idempotencyKey"`
			content
		} `json:"messages"`
	}
	if err := json.Unmarshal(raw, &history); err != nil {
		return "", fmt.Errorf("%w: its transcript is not readable: %w", ErrBroken, err)
	}
	found, reply := false, ""
	for _, m := range history.Messages {
		switch {
		case m.Role == "user" && found && reply != "":
			return reply, nil
		case m.Role == "user" && m.IdempotencyKey == run+":user":
			found = true
		case m.Role == "assistant" && found:
			if text := m.text(); text != "" {
				reply = text
			}
		}
	}
	return reply, nil
}
