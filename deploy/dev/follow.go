package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	nomad "github.com/hashicorp/nomad/api"
)

// provider returns OpenClaw settings and secrets for a real model, if its key is
// in the environment; else none, for the demo model.
func provider() (defaults string, secrets map[string]string) {
	secrets = map[string]string{}
	for _, k := range []string{"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY"} {
		if v := os.Getenv(k); v != "" {
			secrets[k] = v
		}
	}
	if len(secrets) == 0 {
		return "", nil
	}
	agent := map[string]any{"heartbeat": map[string]any{"every": "0m"}}
	// Empty leaves the choice to OpenClaw and, later, to the user.
	if m := os.Getenv("OPENCLAW_MODEL"); m != "" {
		agent["model"] = map[string]any{"primary": m}
	}
	b, err := json.Marshal(map[string]any{"agents": map[string]any{"defaults": agent}})
	if err != nil {
		panic(err) // constant shapes only
	}
	return string(b), secrets
}

// follow prints what happens to the sandboxes until ctx ends.
func follow(ctx context.Context, c *nomad.Client) {
	events, err := c.EventStream().Stream(ctx, map[nomad.Topic][]string{nomad.TopicAllocation: {"*"}}, 0, &nomad.QueryOptions{})
	if err != nil {
		fmt.Println("  (no event stream:", err, ")")
		return
	}
	seen := map[string]int64{} // allocation → time of its last printed event
	begin := time.Now().UnixNano()
	for {
		select {
		case <-ctx.Done():
			return
		case batch, ok := <-events:
			if !ok || batch.Err != nil {
				return
			}
			for _, e := range batch.Events {
				a, err := e.Allocation()
				if err == nil && a != nil {
					show(a, max(begin, seen[a.ID]), seen)
				}
			}
		}
	}
}

func show(a *nomad.Allocation, after int64, seen map[string]int64) {
	for _, ts := range a.TaskStates {
		for _, e := range ts.Events {
			if e.Time <= after {
				continue
			}
			after = e.Time
			seen[a.ID] = e.Time
			switch e.Type {
			case nomad.TaskReceived, nomad.TaskSetup, nomad.TaskStarted, "Building Task Directory":
			default:
				fmt.Printf("  %s  %-28s %s\n", time.Unix(0, e.Time).Format("15:04:05"), a.JobID[max(0, len(a.JobID)-28):], e.DisplayMessage)
			}
		}
	}
}
