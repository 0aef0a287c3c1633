package objstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"openclaw-sandbox/internal/devcluster"
	"openclaw-sandbox/internal/objstore"
)

// The one suite, for every kind of store.
func TestDir(t *testing.T) {
	s, err := objstore.OpenDir(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	behaves(t, s)
}

func TestS3(t *testing.T) {
	srv := startS3(t)
	behaves(t, open(t, s3Config(srv)))

	t.Run("wrong credentials", func(t *testing.T) {
		c := s3Config(srv)
		c.SecretAccessKey = "not-the-secret"
		_, _, err := open(t, c).Get(t.Context(), "a")
		if !errors.Is(err, objstore.ErrDenied) {
			t.Errorf("err = %v, want ErrDenied", err)
		}
		if err != nil && strings.Contains(err.Error(), c.SecretAccessKey) {
			t.Error("the error shows the secret")
		}
	})
	t.Run("no such bucket", func(t *testing.T) {
		c := s3Config(srv)
		c.URL = "s3://nowhere"
		if _, err := open(t, c).Put(t.Context(), "a", strings.NewReader("x"), objstore.Condition{}); !errors.Is(err, objstore.ErrDenied) {
			t.Errorf("err = %v, want ErrDenied", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		c := s3Config(srv)
		c.Endpoint, c.Attempts = "http://127.0.0.1:1", 1
		if _, _, err := open(t, c).Get(t.Context(), "a"); !errors.Is(err, objstore.ErrUnreachable) {
			t.Errorf("err = %v, want ErrUnreachable", err)
		}
	})
}

func startS3(t *testing.T) *devcluster.S3 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	srv, err := devcluster.StartS3(ctx, t.TempDir(), 0, "key", "a-secret-for-tests")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Stop(context.Background()) })
	return srv
}

func s3Config(srv *devcluster.S3) objstore.Config {
	return objstore.Config{URL: "s3://" + srv.Bucket + "/some/prefix", Endpoint: srv.Endpoint(), Region: "us-east-1",
		AccessKeyID: srv.AccessKey, SecretAccessKey: srv.SecretKey, PathStyle: true}
}

func open(t *testing.T, c objstore.Config) objstore.Store {
	t.Helper()
	s, err := objstore.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s objstore.Store, key, text string, cond objstore.Condition) (string, error) {
	t.Helper()
	return s.Put(t.Context(), key, strings.NewReader(text), cond)
}

func get(t *testing.T, s objstore.Store, key string) (string, objstore.Info) {
	t.Helper()
	body, info, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), info
}

func behaves(t *testing.T, s objstore.Store) {
	t.Run("put, get, overwrite", func(t *testing.T) {
		e1, err := put(t, s, "u/a", "one", objstore.Condition{})
		if err != nil {
			t.Fatal(err)
		}
		e2, err := put(t, s, "u/a", "two!", objstore.Condition{})
		if err != nil || e1 == e2 {
			t.Fatalf("second put: etag %q after %q, %v; want another", e2, e1, err)
		}
		if text, info := get(t, s, "u/a"); text != "two!" || info.Size != 4 || info.ETag != e2 {
			t.Errorf("got %q %+v, want two!, 4 bytes, etag %s", text, info, e2)
		}
	})
	t.Run("ranges", func(t *testing.T) {
		big := bytes.Repeat([]byte("0123456789"), 100_000)
		if _, err := s.Put(t.Context(), "u/big", bytes.NewReader(big), objstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		for _, r := range []struct{ off, n, want int64 }{{0, 10, 10}, {999_995, 5, 5}, {500_003, 123_456, 123_456}, {7, 0, 0}} {
			body, err := s.GetRange(t.Context(), "u/big", r.off, r.n)
			if err != nil {
				t.Fatalf("range %+v: %v", r, err)
			}
			b, err := io.ReadAll(body)
			body.Close()
			if err != nil || !bytes.Equal(b, big[r.off:r.off+r.want]) {
				t.Errorf("range %+v: %d bytes, %v", r, len(b), err)
			}
		}
	})
	t.Run("upload", func(t *testing.T) {
		broken := errors.New("the source broke")
		for _, n := range []int{0, 1, 8 << 20, 8<<20 + 1, 21 << 20} {
			key := fmt.Sprintf("u/up-%d", n)
			content := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
			if err := s.Upload(t.Context(), key, io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broken))); !errors.Is(err, broken) {
				t.Errorf("%d bytes, then an error: %v, want the source's error", n, err)
			}
			if _, _, err := s.Get(t.Context(), key); !errors.Is(err, objstore.ErrNotFound) {
				t.Errorf("after a failed upload of %d bytes: %v, want ErrNotFound", n, err)
			}
			if err := s.Upload(t.Context(), key, iotest.OneByteReader(bytes.NewReader(content[:min(n, 100)]))); err != nil {
				t.Fatal(err)
			}
			if err := s.Upload(t.Context(), key, bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			if text, info := get(t, s, key); text != string(content) || info.Size != int64(n) {
				t.Errorf("%d bytes came back as %d", n, len(text))
			}
		}
	})
	t.Run("absent", func(t *testing.T) {
		if _, _, err := s.Get(t.Context(), "u/none"); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("get: %v, want ErrNotFound", err)
		}
		if _, err := s.GetRange(t.Context(), "u/none", 0, 1); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("range: %v, want ErrNotFound", err)
		}
		if err := s.Delete(t.Context(), "u/none"); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	t.Run("conditions", func(t *testing.T) {
		e, err := put(t, s, "u/c", "1", objstore.IfAbsent())
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]objstore.Condition{"absent": objstore.IfAbsent(), "other etag": objstore.IfMatch(`"0123"`)} {
			if _, err := put(t, s, "u/c", "x", c); !errors.Is(err, objstore.ErrPrecondition) {
				t.Errorf("%s: %v, want ErrPrecondition", name, err)
			}
		}
		if _, err := put(t, s, "u/nothing", "x", objstore.IfMatch(e)); !errors.Is(err, objstore.ErrPrecondition) && !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("match on nothing: %v, want a refusal", err)
		}
		if _, err := put(t, s, "u/c", "2", objstore.IfMatch(e)); err != nil {
			t.Errorf("matching etag: %v", err)
		}
		if text, _ := get(t, s, "u/c"); text != "2" {
			t.Errorf("content %q, want 2", text)
		}
	})
	t.Run("one winner", func(t *testing.T) {
		for round := range 20 {
			key := fmt.Sprintf("u/race-%d", round)
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					switch _, err := s.Put(t.Context(), key, strings.NewReader(fmt.Sprint(i)), objstore.IfAbsent()); {
					case err == nil:
						won.Add(1)
					case !errors.Is(err, objstore.ErrPrecondition):
						t.Errorf("loser got %v, want ErrPrecondition", err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Fatalf("round %d: %d winners", round, won.Load())
			}
		}
	})
	t.Run("list and delete", func(t *testing.T) {
		for _, k := range []string{"l/a", "l/b/c", "lx"} {
			if _, err := put(t, s, k, k, objstore.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Delete(t.Context(), "l/a"); err != nil {
			t.Fatal(err)
		}
		var keys []string
		for info, err := range s.List(t.Context(), "l/") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
		if !slices.Equal(keys, []string{"l/b/c"}) {
			t.Errorf("keys = %v, want l/b/c", keys)
		}
	})
	t.Run("bad keys", func(t *testing.T) {
		for _, k := range []string{"", "/a", "a//b", "../a", "a/../b", "a/.", "a\x00"} {
			if _, err := put(t, s, k, "x", objstore.Condition{}); err == nil {
				t.Errorf("key %q was accepted", k)
			}
		}
	})
}
