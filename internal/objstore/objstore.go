// Package objstore is the few verbs of an object store that the snapshot format
// needs, over S3 (Cloudflare R2, AWS, MinIO, versitygw) and over a directory.
//
// Conditional writes carry the whole safety of the format: a store that does
// not honour If-Match and If-None-Match atomically must not be used. R2, AWS S3
// and versitygw do.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"time"
)

// What a store can answer, besides success. Every error of a Store wraps one of
// these, or the context's error.
var (
	// ErrNotFound: there is no such object.
	ErrNotFound = errors.New("no such object")
	// ErrPrecondition: the condition of a Put does not hold; nothing was written.
	ErrPrecondition = errors.New("the object was changed by somebody else")
	// ErrDenied: the credentials are wrong or may not do this, or the bucket is not theirs.
	ErrDenied = errors.New("the object store refused the credentials")
	// ErrUnreachable: no clear answer. A write may have happened all the same.
	ErrUnreachable = errors.New("the object store did not answer")
)

// Info describes a stored object.
type Info struct {
	Key  string
	Size int64
	ETag string // opaque; changes with every write
}

// Condition says when a Put may write. The zero value is: always.
type Condition struct {
	ifAbsent bool
	etag     string
}

// IfAbsent lets a Put write only when there is no such object.
func IfAbsent() Condition { return Condition{ifAbsent: true} }

// IfMatch lets a Put write only over the object that has this ETag.
func IfMatch(etag string) Condition { return Condition{etag: etag} }

// Holds says whether a Put may write over an object that is there, or not, and has
// that ETag. It is for implementations of Store.
func (c Condition) Holds(there bool, etag string) bool {
	return !(c.ifAbsent && there) && (c.etag == "" || there && c.etag == etag)
}

// Store is an object store. Keys are slash-separated paths without a leading
// slash. It is safe for concurrent use.
type Store interface {
	// Get opens an object. ErrNotFound if there is none. The caller closes the body.
	Get(ctx context.Context, key string) (io.ReadCloser, Info, error)
	// GetRange opens n bytes from off; fewer if the object ends. ErrNotFound if there is none.
	GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	// Put writes an object as a whole and returns its new ETag. ErrPrecondition if
	// cond does not hold. After ErrUnreachable the write may or may not have happened.
	// It is for small objects: at most 5 GiB, in one request.
	Put(ctx context.Context, key string, body io.ReadSeeker, cond Condition) (etag string, err error)
	// Upload writes an object of any length, as it comes, in bounded memory; nothing is
	// there before it is whole. It makes no condition: it is for names that nobody else
	// uses, such as random ones. If body fails, nothing is written, and its error is
	// returned.
	Upload(ctx context.Context, key string, body io.Reader) error
	// Delete removes an object; one that is not there is not an error.
	Delete(ctx context.Context, key string) error
	// List yields the objects whose keys begin with prefix, in no promised order.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
}

// Config says where a store is.
type Config struct {
	// URL is s3://bucket/prefix or file:///folder.
	URL string
	// Endpoint is the S3 server, for example https://<account>.r2.cloudflarestorage.com;
	// empty for AWS.
	Endpoint string
	// Region is the S3 region; "auto" (R2's) if empty.
	Region string
	// AccessKeyID and SecretAccessKey are the credentials; the AWS SDK's chain
	// (environment, shared config, instance role) if empty.
	AccessKeyID, SecretAccessKey string
	// PathStyle puts the bucket in the path instead of the host name.
	PathStyle bool
	// Attempts is how often one request is tried in all; 4 if zero.
	Attempts int
	// AttemptTimeout bounds the wait for the head of one answer; 15 s if zero.
	AttemptTimeout time.Duration
}

// Open checks the config and returns the store. It makes no request.
func Open(ctx context.Context, c Config) (Store, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("store url: %w", err)
	}
	prefix := strings.Trim(u.Path, "/")
	switch {
	case u.Scheme == "s3" && u.Host != "":
		return openS3(ctx, c, u.Host, prefix)
	case u.Scheme == "file" && u.Host == "" && prefix != "":
		return OpenDir("/" + prefix)
	}
	return nil, fmt.Errorf("store url %q: want s3://bucket/prefix or file:///folder", c.URL)
}

// checkKey refuses keys that a directory would read as a way out of itself.
func checkKey(key string) error {
	if key == "" || strings.ContainsRune(key, 0) {
		return fmt.Errorf("object key %q is not valid", key)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("object key %q is not valid", key)
		}
	}
	return nil
}
