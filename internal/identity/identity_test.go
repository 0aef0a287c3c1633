package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http/httptest"
	"testing"
)

func sum(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }

func TestTokens(t *testing.T) {
	var ts Tokens
	for _, c := range [][3]string{{"alice-token", "alice", "user"}, {"root-token", "ops", "admin"}} {
		tok, err := ParseToken(sum(c[0]), c[1], c[2])
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, tok)
	}
	cases := map[string]struct {
		header string
		user   string
		bob    bool // may use bob's sandbox
		err    error
	}{
		"right":        {"Bearer alice-token", "alice", false, nil},
		"lower case":   {"bearer alice-token", "alice", false, nil},
		"admin":        {"Bearer root-token", "ops", true, nil},
		"wrong":        {"Bearer alice-tokeN", "", false, ErrUnauthenticated},
		"the sum":      {"Bearer " + sum("alice-token"), "", false, ErrUnauthenticated},
		"empty":        {"", "", false, ErrUnauthenticated},
		"no token":     {"Bearer ", "", false, ErrUnauthenticated},
		"other scheme": {"Basic alice-token", "", false, ErrUnauthenticated},
		"two":          {"Bearer alice-token root-token", "", false, ErrUnauthenticated},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", c.header)
			got, err := Any{ts}.Identify(r)
			if !errors.Is(err, c.err) || string(got.User) != c.user || (err == nil && got.May("bob") != c.bob) {
				t.Errorf("Identify = %+v, %v; want %s, %v", got, err, c.user, c.err)
			}
			if err == nil && (r.Header.Get("Authorization") != "" || !got.May(got.User)) {
				t.Error("the token is still in the request, or the own sandbox is closed")
			}
		})
	}
}

func TestParseToken(t *testing.T) {
	for _, c := range [][3]string{{"abc", "alice", "user"}, {sum("x"), "Alice", "user"}, {sum("x"), "alice", "god"}, {"", "alice", "user"}} {
		if _, err := ParseToken(c[0], c[1], c[2]); err == nil {
			t.Errorf("%v was accepted", c)
		}
	}
}

func TestDev(t *testing.T) {
	c, err := Dev{Self: "me"}.Identify(httptest.NewRequest("GET", "/", nil))
	if err != nil || c.User != "me" || !c.May("anybody") {
		t.Errorf("Identify = %+v, %v", c, err)
	}
}
