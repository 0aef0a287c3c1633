package hostname

import "testing"

func TestOf(t *testing.T) {
	for host, want := range map[string]string{"alice.localhost": "alice.localhost", "Alice.LOCALHOST:8080": "alice.localhost", "localhost.": "localhost",
		"localhost.:80": "localhost", "127.0.0.1:80": "127.0.0.1", "[::1]:80": "::1", "[::1]": "[::1]", "": "", ":80": ""} {
		if got := Of(host); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
}
