package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
)

// What this package answers, besides the object store's own errors.
var (
	// ErrFenced: a newer run of this user exists; this one may never save again.
	ErrFenced = errors.New("a newer run of this user has taken over the state")
	// ErrCorrupt: a stored object fails verification. Nothing stored was changed.
	ErrCorrupt = errors.New("a stored object fails verification")
	// ErrNewer: a newer version of this program wrote the object, in a format of its own.
	ErrNewer = errors.New("a newer version of this program wrote it")
	// ErrTooLarge: the state passes a limit of Options.
	ErrTooLarge = errors.New("the state is larger than the limits allow")
	// ErrNotRestored: the run did not restore completely, so it may not save.
	ErrNotRestored = errors.New("this run did not restore its state completely and may not save")
)

const (
	// formatVersion 2 lets a file's extents point into earlier segments, and 3 has blocks
	// with a checksum instead of SHA-256; states of earlier versions are read as they are.
	formatVersion = 3
	oldestVersion = 1
	maxHeadSize   = 8 << 20
	maxSegmentRef = 10_000
	maxMetas      = 1 << 30 // of all segments' metadata, decompressed
)

// State is what a head says of the run that wrote it.
type State string

const (
	StateRunning State = "running" // a run has claimed the state and not finished
	StateClean   State = "clean"   // the last run ended and saved everything
)

// Writer is the run that wrote a head.
type Writer struct {
	Alloc string `json:"alloc"` // Nomad's allocation id
	Node  string `json:"node"`
}

// Head is the one mutable object of a user.
type Head struct {
	Version  int          `json:"version"`
	User     sandbox.User `json:"user"`
	Epoch    uint64       `json:"epoch"` // one more with every start
	Seq      uint64       `json:"seq"`   // one more with every save
	State    State        `json:"state"`
	Writer   Writer       `json:"writer"`
	Run      string       `json:"run"`   // random, one per claim
	Write    string       `json:"write"` // random, one per write: settles unclear answers
	Claimed  time.Time    `json:"claimed"`
	Saved    time.Time    `json:"saved,omitzero"` // of the last save; zero before the first
	Files    int64        `json:"files"`
	Bytes    int64        `json:"bytes"`
	Segments []segmentRef `json:"segments"`
	Key      *wrappedKey  `json:"key,omitempty"` // of an encrypted state
}

// segmentRef names a segment and where its metadata lies in it.
type segmentRef struct {
	Name    string `json:"name"`             // below seg/
	Size    int64  `json:"size"`             // of the object
	MetaOff int64  `json:"meta_off"`         // its metadata, compressed, ends the object
	MetaRaw int64  `json:"meta_raw"`         // its size when decompressed
	MetaSum []byte `json:"meta_sum"`         // SHA-256 of the compressed metadata
	Raw     int64  `json:"raw"`              // content in its blocks, decompressed
	Sealed  bool   `json:"sealed,omitempty"` // encrypted with the head's data key
}

func headKey(u sandbox.User) string { return "users/" + string(u) + "/head" }

func segmentKey(u sandbox.User, name string) string { return "users/" + string(u) + "/seg/" + name }

// ReadHead returns a user's head and its ETag. It returns objstore.ErrNotFound
// for a user without state, ErrNewer, and ErrCorrupt for a head that can not be right.
func ReadHead(ctx context.Context, st objstore.Store, u sandbox.User) (*Head, string, error) {
	p, etag, err := readHead(ctx, st, u, headKey(u))
	if err != nil {
		return nil, "", err
	}
	return &p.Head, etag, nil
}

// readHead reads a head, be it the user's own or a copy that is kept.
func readHead(ctx context.Context, st objstore.Store, u sandbox.User, key string) (*pinned, string, error) {
	body, info, err := st.Get(ctx, key)
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, maxHeadSize+1))
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w: %w", key, objstore.ErrUnreachable, err)
	}
	var p pinned
	if len(raw) > maxHeadSize {
		return nil, "", fmt.Errorf("%s: %w: it is larger than %d bytes", key, ErrCorrupt, maxHeadSize)
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, "", fmt.Errorf("%s: %w: %w", key, ErrCorrupt, err)
	}
	if p.Version > formatVersion {
		return nil, "", fmt.Errorf("%s: %w: format version %d, this one reads %d to %d", key, ErrNewer, p.Version, oldestVersion, formatVersion)
	}
	if err := p.check(u); err != nil {
		return nil, "", fmt.Errorf("%s: %w: %w", key, ErrCorrupt, err)
	}
	return &p, info.ETag, nil
}

func (h *Head) check(u sandbox.User) error {
	switch {
	case h.Version < oldestVersion:
		return fmt.Errorf("format version %d", h.Version)
	case h.User != u:
		return fmt.Errorf("it belongs to user %.60q", h.User)
	case h.State != StateRunning && h.State != StateClean:
		return fmt.Errorf("unknown state %.20q", h.State)
	case len(h.Segments) > maxSegmentRef:
		return fmt.Errorf("%d segments", len(h.Segments))
	}
	var meta int64
	for _, s := range h.Segments {
		if s.Name == "" || strings.Trim(s.Name, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") != "" || len(s.Name) > 64 {
			return fmt.Errorf("%.80q is no name of a segment", s.Name)
		}
		if s.Size < 0 || s.MetaOff < 0 || s.MetaOff > s.Size || s.MetaRaw < 0 || s.MetaRaw > maxMeta || s.Size-s.MetaOff > maxMeta || s.Raw < 0 {
			return fmt.Errorf("segment %.80q has impossible sizes", s.Name)
		}
		if s.Sealed && h.Key == nil {
			return fmt.Errorf("segment %.80q is encrypted, and there is no key", s.Name)
		}
		if meta += s.MetaRaw; meta > maxMetas {
			return fmt.Errorf("%d bytes of metadata", meta)
		}
	}
	return nil
}

// headTries is how often an unclear answer to a head's write is looked into.
const headTries = 4

// writeHead writes h over the head that has etag ("" for: there is none), and
// returns the new ETag. An unclear answer is settled by reading: if the head
// bears this write's random id, the write happened; if it bears one of mine, an
// earlier write of this run did, and h goes over that. ErrFenced if somebody
// else's write is there.
func writeHead(ctx context.Context, st objstore.Store, h *Head, etag string, mine []string) (string, error) {
	raw, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode head: %w", err)
	}
	cond := objstore.IfAbsent()
	if etag != "" {
		cond = objstore.IfMatch(etag)
	}
	for try := 1; ; try++ {
		now, err := st.Put(ctx, headKey(h.User), bytes.NewReader(raw), cond)
		if err == nil {
			return now, nil
		}
		unclear := errors.Is(err, objstore.ErrUnreachable)
		if !unclear && !errors.Is(err, objstore.ErrPrecondition) && !errors.Is(err, objstore.ErrNotFound) {
			return "", fmt.Errorf("write head: %w", err)
		}
		there, thereTag, readErr := ReadHead(ctx, st, h.User)
		switch {
		case readErr == nil && there.Write == h.Write:
			return thereTag, nil
		case readErr == nil && slices.Contains(mine, there.Write) && try < headTries:
			etag, cond = thereTag, objstore.IfMatch(thereTag)
			continue
		case readErr == nil && thereTag != etag:
			return "", fmt.Errorf("write head of epoch %d: %w (epoch %d, allocation %.40s)", h.Epoch, ErrFenced, there.Epoch, there.Writer.Alloc)
		case readErr != nil && !errors.Is(readErr, objstore.ErrNotFound), ctx.Err() != nil, try == headTries:
			return "", fmt.Errorf("write head: %w", errors.Join(err, readErr))
		case readErr != nil && etag != "":
			return "", fmt.Errorf("write head of epoch %d: %w (the head is gone)", h.Epoch, ErrFenced)
		}
		// The head is what it was before: write again.
	}
}
