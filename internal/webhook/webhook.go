// Package webhook lets requests of chat channels reach a sandbox without a login.
// Each proves by a signature that it is for that very user, before anything is
// looked up, woken or proxied. Which paths are open at all is the operator's list.
package webhook

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/limit"
	"openclaw-sandbox/internal/sandbox"
)

// Hook is one webhook: the paths that are open to whom signs like that.
type Hook struct {
	Name      string   // part of what derived secrets are made of
	Path      string   // below the sandbox's address; a prefix if it ends in "/"
	Methods   []string // requests with other methods are none of the hook's
	Signature Signature
	Secrets   Secrets
	MaxBody   int64         // bytes of a request's body
	PerMinute int           // requests of one user that one router lets through
	Hold      time.Duration // how long a request waits for a gateway; below the sender's own patience
	Port      int           // where in the sandbox it listens; 0 is the gateway's own
}

// Defaults of a Hook.
const (
	DefaultMaxBody   = 1 << 20
	DefaultPerMinute = 120
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// CheckName refuses what is no hook's name.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("want a webhook's name of 1 to 40 lower-case letters, digits and hyphens, got %q", name)
	}
	return nil
}

// closed are the paths below which no hook may be: the router's own, and the place of users.
var closed = []string{"/_sandbox/", "/api/", "/u/", "/health/"}

// Check finds settings that would open more than the operator means to.
func (h Hook) Check() error {
	all := []error{CheckName(h.Name)}
	bad := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if !plain(h.Path) || h.Path == "/" || strings.ContainsAny(h.Path, "%?#") {
		bad("path: want one path like \"/slack/events\", or all below one like \"/hooks/\", got %q", h.Path)
	}
	for _, p := range closed {
		if strings.HasPrefix(strings.ToLower(h.Path)+"/", p) {
			bad("path: %q is below %s, which is the router's own", h.Path, p)
		}
	}
	if len(h.Methods) == 0 || slices.ContainsFunc(h.Methods, func(m string) bool { return m == "" || m != strings.ToUpper(m) }) {
		bad("methods: want at least one, in capitals, got %q", h.Methods)
	}
	if _, ok := kinds[h.Signature]; !ok {
		bad("signature: want one of %s, got %q", signatures, h.Signature)
	}
	if _, derived := h.Secrets.(*Derived); derived && !kinds[h.Signature].derived {
		bad("secret_files: the secrets of %q are the channel's own; give them in secrets_dir", h.Signature)
	}
	if h.MaxBody < 1 {
		bad("max_body: want 1 or more, got %d", h.MaxBody)
	}
	if h.PerMinute < 1 {
		bad("per_minute: want 1 or more, got %d", h.PerMinute)
	}
	if h.Hold < 0 {
		bad("hold: want 0s or more, got %s", h.Hold)
	}
	if h.Port < 0 || h.Port > 65535 {
		bad("port: want 0 to 65535, got %d", h.Port)
	}
	return errors.Join(all...)
}

// plain tells whether everybody who reads the path takes it for the same one.
func plain(p string) bool {
	return strings.HasPrefix(p, "/") && (path.Clean(p) == p || path.Clean(p)+"/" == p) && !strings.ContainsAny(p, "\\\x00")
}

func (h Hook) matches(r *http.Request) bool {
	if r.URL.Path != h.Path && !(strings.HasSuffix(h.Path, "/") && strings.HasPrefix(r.URL.Path, h.Path)) {
		return false
	}
	// What is escaped may be another path to the gateway than to us.
	return slices.Contains(h.Methods, r.Method) && plain(r.URL.Path) && r.URL.EscapedPath() == r.URL.Path && r.Header.Get("Upgrade") == ""
}

// Set are the webhooks of a router. It is safe for concurrent use.
type Set struct {
	hooks    []Hook                                // the longest path first
	budgets  map[string]*limit.Rates[sandbox.User] // by hook; only what was verified counts, so that nobody can use up another's
	failures *identity.Limit
	now      func() time.Time

	// How many bytes of bodies may be held before they are verified. Large bodies cannot
	// use up the share of small ones, which most webhooks are.
	small, large *semaphore.Weighted
}

const (
	// failuresPerMinute of one address are answered with 401, further ones with 429.
	failuresPerMinute = 60
	// suspectBody is the largest body, in bytes, of an address with too many failures.
	// It is not cut off altogether: a channel's addresses are those of all its
	// customers, and one of them could silence the others.
	suspectBody = 64 << 10
	// unverifiedBytes bounds the bodies of up to suspectBody bytes that are held before
	// their signature was checked, and those above likewise.
	unverifiedBytes = 16 << 20
	// busyRetry is when a sender may try again that found no room for its body.
	busyRetry = 5 * time.Second
	// bodyTimeout is how long a body may take to come.
	bodyTimeout = 10 * time.Second
)

// New returns a set of hooks that were checked, each with a name of its own.
func New(hooks []Hook) *Set {
	hooks = slices.Clone(hooks)
	slices.SortStableFunc(hooks, func(a, b Hook) int { return cmp.Compare(len(b.Path), len(a.Path)) })
	budgets := make(map[string]*limit.Rates[sandbox.User], len(hooks))
	for _, h := range hooks {
		budgets[h.Name] = limit.NewRates[sandbox.User](float64(h.PerMinute), h.PerMinute)
	}
	return &Set{hooks: hooks, budgets: budgets, failures: identity.NewLimit(failuresPerMinute, failuresPerMinute), now: time.Now,
		small: semaphore.NewWeighted(unverifiedBytes), large: semaphore.NewWeighted(unverifiedBytes)}
}

// Match finds the hook that a request is for, by its path below the sandbox's
// address and its method.
func (s *Set) Match(r *http.Request) (Hook, bool) {
	for _, h := range s.hooks {
		if h.matches(r) {
			return h, true
		}
	}
	return Hook{}, false
}

// Result is what became of a webhook.
type Result string

// The results.
const (
	Verified Result = "verified"  // it is the user's; what the gateway said is another matter
	Refused  Result = "refused"   // no signature, or not this user's
	Limited  Result = "limited"   // too many, of a user or of an address
	TooLarge Result = "too_large" // its body
	Broken   Result = "broken"    // its body did not come
	Failed   Result = "failed"    // the secrets can not be read
)

// Results are all of them.
var Results = []Result{Verified, Refused, Limited, TooLarge, Broken, Failed}

// Refusal is why a webhook may not pass.
type Refusal struct {
	Result     Result // never Verified
	RetryAfter time.Duration
	Err        error
}

func (e *Refusal) Error() string { return e.Err.Error() }

// Unwrap is the reason: ErrUnsigned, ErrSignature or ErrStale of what is Refused.
func (e *Refusal) Unwrap() error { return e.Err }

// Verify lets a request pass that h's sender signed for user u, or returns a
// *Refusal. It reads the body and puts it back, as it was.
func (s *Set) Verify(w http.ResponseWriter, r *http.Request, h Hook, u sandbox.User) error {
	now := s.now()
	keys, err := h.Secrets.Of(h.Name, u)
	if err != nil {
		return &Refusal{Result: Failed, Err: err}
	}
	most := h.MaxBody
	if s.failures.Spent(r, now) {
		most = min(most, suspectBody)
	}
	body, release := s.reader(w, r, most)
	defer release()
	kind := kinds[h.Signature]
	if err := kind.verify(r.Header, keys, now, body); err != nil {
		if errors.Is(err, errBusy) || s.failures.Allow(r, now) {
			return refusal(err)
		}
		return &Refusal{Result: Limited, RetryAfter: time.Minute, Err: err}
	}
	text, err := body()
	if err != nil {
		return refusal(err)
	}
	if wait := s.budgets[h.Name].Allow(u, now); wait > 0 {
		return &Refusal{Result: Limited, RetryAfter: wait, Err: fmt.Errorf("more than %d a minute", h.PerMinute)}
	}
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = io.NopCloser(bytes.NewReader(text)), int64(len(text)), nil, nil
	r.Header.Del("Expect") // it came already
	if kind.ours != "" {
		r.Header.Del(kind.ours)
	}
	return nil
}

func refusal(err error) *Refusal {
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, errBusy):
		return &Refusal{Result: Limited, RetryAfter: busyRetry, Err: err}
	case errors.As(err, &large):
		return &Refusal{Result: TooLarge, Err: fmt.Errorf("the body has more than %d bytes", large.Limit)}
	case errors.Is(err, ErrUnsigned), errors.Is(err, ErrSignature), errors.Is(err, ErrStale):
		return &Refusal{Result: Refused, Err: err}
	}
	return &Refusal{Result: Broken, Err: err}
}

// errBusy means that as many unverified bytes are held as may be.
var errBusy = errors.New("too many webhooks wait for the check of their signature")

// reader returns what reads r's body when it is first called, and what gives back the
// room that the body has taken until then.
func (s *Set) reader(w http.ResponseWriter, r *http.Request, limit int64) (read func() ([]byte, error), release func()) {
	var text []byte
	var err error
	done := false
	var share *semaphore.Weighted // that the body has taken held bytes of
	var held int64
	return func() ([]byte, error) {
			if done {
				return text, err
			}
			done = true
			if r.ContentLength > limit {
				err = &http.MaxBytesError{Limit: limit}
				return nil, err
			}
			size := limit
			if r.ContentLength >= 0 {
				size = r.ContentLength
			}
			from := s.large
			if size <= suspectBody {
				from = s.small
			}
			size = min(size, unverifiedBytes)
			if !from.TryAcquire(size) {
				err = errBusy
				return nil, err
			}
			share, held = from, size
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(bodyTimeout))
			text, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
			rc.SetReadDeadline(time.Time{})
			return text, err
		}, func() {
			if share != nil {
				share.Release(held)
			}
		}
}
