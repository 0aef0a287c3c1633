package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openclaw-sandbox/internal/webhook"
)

// What is printed is what the router takes.
func TestWebhookSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "master")
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	masters, err := webhook.ReadMasters(file)
	if err != nil {
		t.Fatal(err)
	}
	secret := masters.Secret("telegram", "alice")
	for args, want := range map[string]string{
		"webhook alice telegram --secret-file " + file:                                                "secret: " + secret + "\n",
		"webhook alice telegram --base-url https://{user}.claw.test/tg --secret-file " + file:         "url:    https://alice.claw.test/tg\nsecret: " + secret + "\n",
		"--json webhook alice telegram --base-url https://claw.test/u/{user}/x --secret-file " + file: `{"url":"https://claw.test/u/alice/x","secret":"` + secret + "\"}\n",
	} {
		// No store: nothing but the file is needed.
		if out, err := ctl(t, "", strings.Fields(args)...); err != nil || out != want {
			t.Errorf("%s: %q, %v; want %q", args, out, err, want)
		}
	}
	for args, want := range map[string]string{
		"webhook alice telegram": "secret-file", "webhook Alice telegram --secret-file " + file: "user", "webhook alice Tele_gram --secret-file " + file: "name",
		"webhook alice telegram --secret-file /no/such": "no such file", "webhook alice telegram --base-url /x --secret-file " + file: "--base-url",
	} {
		if _, err := ctl(t, "", strings.Fields(args)...); err == nil || !strings.Contains(explain(err), want) {
			t.Errorf("%s: %v, want it to say %q", args, err, want)
		}
	}
}
