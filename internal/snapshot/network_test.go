package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"openclaw-sandbox/internal/objstore"
)

// A connection that breaks within a body is the network, not a corruption.
func TestCutBody(t *testing.T) {
	st := dirStore(t)
	m := start(t, st)
	m.write("a", strings.Repeat("some text ", 1000))
	m.mustSave(true)
	var cut atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		key := strings.TrimPrefix(q.URL.Path, "/b/")
		if q.Method == http.MethodPut {
			b, _ := io.ReadAll(q.Body)
			tag, err := st.Put(q.Context(), key, strings.NewReader(string(b)), objstore.Condition{})
			if err != nil {
				panic(err)
			}
			w.Header().Set("ETag", `"`+tag+`"`)
			return
		}
		body, info, err := st.Get(q.Context(), key)
		if err != nil {
			w.WriteHeader(404)
			return
		}
		defer body.Close()
		b, _ := io.ReadAll(body)
		status := 200
		if rg := q.Header.Get("Range"); rg != "" {
			var lo, hi int
			fmt.Sscanf(rg, "bytes=%d-%d", &lo, &hi)
			b, status = b[lo:min(hi+1, len(b))], 206
		}
		w.Header().Set("ETag", `"`+info.ETag+`"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.WriteHeader(status)
		if status == 206 && cut.Load() {
			w.Write(b[:len(b)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Write(b)
	}))
	defer srv.Close()
	s3, err := objstore.Open(t.Context(), objstore.Config{URL: "s3://b", Endpoint: srv.URL, Region: "us-east-1", AccessKeyID: "k", SecretAccessKey: "s", PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	n := claim(t, s3)
	cut.Store(true)
	err = n.run.Restore(t.Context(), n.root, nil)
	t.Logf("restore over a connection that breaks: %v", err)
	if errors.Is(err, ErrCorrupt) || !errors.Is(err, objstore.ErrUnreachable) {
		t.Errorf("a broken connection is classed as corruption (permanent)")
	}
}

// counted counts ranged reads, and refuses them on demand.
type counted struct {
	objstore.Store
	reads  atomic.Int64
	refuse atomic.Bool
}

func (c *counted) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	c.reads.Add(1)
	if c.refuse.Load() {
		return nil, objstore.ErrUnreachable
	}
	return c.Store.GetRange(ctx, key, off, n)
}

// What a restore reads first is there with the claim, and read again if it is not.
func TestClaimReadsAhead(t *testing.T) {
	for name, refuse := range map[string]bool{"read": false, "refused": true} {
		t.Run(name, func(t *testing.T) {
			st := &counted{Store: dirStore(t)}
			m := start(t, st)
			m.write("a", "content")
			m.mustSave(true)
			st.reads.Store(0)
			st.refuse.Store(refuse)
			n := claim(t, st)
			if got := st.reads.Load(); got != 1 {
				t.Errorf("the claim made %d ranged reads, want 1", got)
			}
			st.refuse.Store(false)
			if err := n.run.Restore(t.Context(), n.root, nil); err != nil {
				t.Fatal(err)
			}
			want := int64(2) // metadata, content
			if refuse {
				want++
			}
			if got := st.reads.Load(); got != want {
				t.Errorf("%d ranged reads in all, want %d", got, want)
			}
			if got := tree(t, n.path)["a"]; got == "" {
				t.Error("the file is not there")
			}
		})
	}
}
