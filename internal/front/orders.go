package front

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"

	lru "github.com/hashicorp/golang-lru/v2"
)

// orders tells the ACME client where its order is when a server says so only once:
// RFC 8555 section 7.4 has the order's Location in the answer to a new order; the
// client wants it in that to its finalization, too, which not all servers give.
type orders struct {
	next http.RoundTripper
	of   *lru.Cache[string, string] // by the address of its finalization
}

const (
	// maxOrders is how many orders may be under way.
	maxOrders = 100
	// maxOrder bounds an order's JSON, in bytes.
	maxOrder = 1 << 20
)

func newOrders(next http.RoundTripper) *orders {
	of, err := lru.New[string, string](maxOrders)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &orders{next: next, of: of}
}

// RoundTrip implements http.RoundTripper.
func (o *orders) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	at := resp.Header.Get("Location")
	if known, ok := o.of.Get(r.URL.String()); ok && at == "" {
		resp.Header.Set("Location", known)
	}
	if resp.StatusCode != http.StatusCreated || at == "" {
		return resp, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxOrder))
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var order struct {
		Finalize string `json:"finalize"`
	}
	if json.Unmarshal(body, &order) == nil && order.Finalize != "" {
		o.of.Add(order.Finalize, at)
	}
	return resp, nil
}
