package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Why a request is not a user's webhook.
var (
	ErrUnsigned  = errors.New("it bears no signature of this webhook's kind")
	ErrSignature = errors.New("its signature is not one of this user's")
	ErrStale     = errors.New("it was signed more than five minutes ago, or ahead")
)

// Signature is a way to sign.
type Signature string

// The signatures.
const (
	// Telegram sends the secret itself in a header (Bot API, setWebhook, secret_token).
	Telegram Signature = "telegram"
	// Slack signs a timestamp and the body with the app's signing secret ("Verifying
	// requests from Slack", version v0).
	Slack Signature = "slack"
	// Line signs the body with the channel's secret (Messaging API, "Verify webhook
	// signature"). There is no timestamp: what was sent once may be sent again.
	Line Signature = "line"
	// Signed is our own, for programs: X-Sandbox-Signature: t=UNIX,v1=HEX, the
	// HMAC-SHA256 of "UNIX.BODY" with the secret. Several v1 may stand there.
	Signed Signature = "signed"
)

const signatures = "telegram, slack, line, signed"

// SignedHeader is the header of the signature Signed.
const SignedHeader = "X-Sandbox-Signature"

// Tolerance is how far a timestamp may be off: what is recorded can not be sent
// again later.
const Tolerance = 5 * time.Minute

// kind is what is known of a signature.
type kind struct {
	verify  verifier
	derived bool          // the secret may be one that we chose
	ours    string        // a header that is for us only
	hold    time.Duration // below the sender's own time-out
}

// verifier checks that one of keys has signed. It asks for the body only if what
// the head says may be right. It returns ErrUnsigned, ErrSignature, ErrStale or
// the error of body.
type verifier func(head http.Header, keys [][]byte, now time.Time, body func() ([]byte, error)) error

var kinds = map[Signature]kind{
	Telegram: {verify: telegram, derived: true, hold: 25 * time.Second},
	Slack:    {verify: slack, hold: 2 * time.Second},
	Line:     {verify: line, hold: time.Second},
	Signed:   {verify: signed, derived: true, ours: SignedHeader, hold: 25 * time.Second},
}

// Hold is how long a request of such a sender may be held: Slack waits for 3
// seconds, LINE for 2, Telegram for 50.
func (s Signature) Hold() time.Duration { return kinds[s].hold }

func telegram(head http.Header, keys [][]byte, _ time.Time, _ func() ([]byte, error)) error {
	token := only(head, "X-Telegram-Bot-Api-Secret-Token")
	if token == "" {
		return ErrUnsigned
	}
	// Hashed, so that the time taken does not tell the length either.
	got := sha256.Sum256([]byte(token))
	return anyOf(keys, func(key []byte) bool {
		want := sha256.Sum256(key)
		return subtle.ConstantTimeCompare(want[:], got[:]) == 1
	})
}

func slack(head http.Header, keys [][]byte, now time.Time, body func() ([]byte, error)) error {
	at := only(head, "X-Slack-Request-Timestamp")
	given, ok := strings.CutPrefix(only(head, "X-Slack-Signature"), "v0=")
	sum, err := hex.DecodeString(given)
	if at == "" || !ok || err != nil {
		return ErrUnsigned
	}
	if !fresh(at, now) {
		return ErrStale
	}
	return signs(keys, "v0:"+at+":", body, sum)
}

func line(head http.Header, keys [][]byte, _ time.Time, body func() ([]byte, error)) error {
	sum, err := base64.StdEncoding.DecodeString(only(head, "X-Line-Signature"))
	if err != nil || len(sum) == 0 {
		return ErrUnsigned
	}
	return signs(keys, "", body, sum)
}

// maxSums is how many v1 are looked at.
const maxSums = 4

func signed(head http.Header, keys [][]byte, now time.Time, body func() ([]byte, error)) error {
	at, sums := "", [][]byte(nil)
	for part := range strings.SplitSeq(only(head, SignedHeader), ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "t":
			at = value
		case "v1":
			if sum, err := hex.DecodeString(value); err == nil && len(sums) < maxSums {
				sums = append(sums, sum)
			}
		}
	}
	if at == "" || len(sums) == 0 {
		return ErrUnsigned
	}
	if !fresh(at, now) {
		return ErrStale
	}
	return signs(keys, at+".", body, sums...)
}

// Sign returns the value of SignedHeader for a body.
func Sign(key, body []byte, now time.Time) string {
	at := strconv.FormatInt(now.Unix(), 10)
	return "t=" + at + ",v1=" + hex.EncodeToString(mac(key, at+".", body))
}

// only is a header's value, if it is there once.
func only(head http.Header, name string) string {
	if values := head.Values(name); len(values) == 1 {
		return values[0]
	}
	return ""
}

func fresh(at string, now time.Time) bool {
	t, err := strconv.ParseInt(at, 10, 64)
	return err == nil && now.Sub(time.Unix(t, 0)).Abs() <= Tolerance
}

// signs tells whether one of sums is that of prefix and body with one of keys.
func signs(keys [][]byte, prefix string, body func() ([]byte, error), sums ...[]byte) error {
	text, err := body()
	if err != nil {
		return err
	}
	return anyOf(keys, func(key []byte) bool {
		want, ok := mac(key, prefix, text), false
		for _, sum := range sums {
			ok = hmac.Equal(want, sum) || ok
		}
		return ok
	})
}

func anyOf(keys [][]byte, fits func(key []byte) bool) error {
	for _, key := range keys {
		if fits(key) {
			return nil
		}
	}
	return ErrSignature
}

func mac(key []byte, prefix string, text []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(prefix))
	m.Write(text)
	return m.Sum(nil)
}
