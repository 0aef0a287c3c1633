package snapshot

import (
	"fmt"
	"path"
	"strings"
)

// Options are the settings of a run's snapshots.
type Options struct {
	// Excludes are patterns of paths that are not saved, relative to the state:
	// path.Match for each part, and "**" for any number of parts. A pattern that
	// matches a directory excludes what is below it.
	Excludes []string
	// Quiet are patterns, as Excludes, of paths whose change alone is no hurry: a
	// Look tells them apart.
	Quiet []string
	// MaxBytes, MaxFile and MaxFiles bound the state's size, one file's, and the
	// number of paths. Past them a save and a restore fail with ErrTooLarge.
	MaxBytes, MaxFile, MaxFiles int64
	// Parallel is how many requests, and at most how many compressions, go at once.
	Parallel int
	// UID and GID own what is restored; -1 leaves it to this process.
	UID, GID int
	// MaxSegments is how many segments a head may name, and MaxDead how many bytes
	// of replaced content they may hold beyond what is live, before the next save
	// writes small and worn segments anew, as one.
	MaxSegments int
	MaxDead     int64
	// Retention says which snapshots stay in the history.
	Retention Retention
	// Keys are the master keys of encrypted states; nil writes new states plain.
	Keys *Keys
	// IndexFile keeps what the run knows between saves, so that Resume need not read
	// every file again; outside the sandbox's reach. "" for none.
	IndexFile string
}

// DefaultOptions are what the driver's settings begin with.
func DefaultOptions() Options {
	return Options{
		Excludes: []string{
			// What OpenClaw rebuilds, or ties to one host, or locks with.
			"openclaw/cache", "openclaw/tmp", "openclaw/logs", "openclaw/npm", "openclaw/tools", "openclaw/dev", "openclaw/git", "openclaw/plugin-skills",
			"openclaw/**/*.sqlite-shm", "openclaw/**/*.reindex-lock.sqlite*", "openclaw/**/*.memory-reindex-*",
			"home/.npm", "home/.cache",
		},
		// The gateway writes a sign of life into these every minute.
		Quiet:    []string{"openclaw/state/openclaw.sqlite", "openclaw/state/openclaw.sqlite-wal"},
		MaxBytes: 20 << 30, MaxFile: 4 << 30, MaxFiles: 2_000_000,
		Parallel: 16, UID: -1, GID: -1, MaxSegments: 64, MaxDead: 32 << 20, Retention: DefaultRetention(),
	}
}

// CheckExcludes returns an error that names the first pattern that is not valid.
func CheckExcludes(patterns []string) error {
	for _, p := range patterns {
		for part := range strings.SplitSeq(p, "/") {
			if _, err := path.Match(part, ""); err != nil || part == "" {
				return fmt.Errorf("exclude pattern %q is not valid", p)
			}
		}
	}
	return nil
}

// excluder holds patterns, split.
type excluder [][]string

func newExcluder(patterns []string) excluder {
	var e excluder
	for _, p := range patterns {
		e = append(e, strings.Split(p, "/"))
	}
	return e
}

func (e excluder) match(p string) bool {
	parts := strings.Split(p, "/")
	for _, pattern := range e {
		if matchParts(pattern, parts) {
			return true
		}
	}
	return false
}

func matchParts(pattern, parts []string) bool {
	for i, want := range pattern {
		if want == "**" {
			for skip := range len(parts) - i + 1 {
				if matchParts(pattern[i+1:], parts[i+skip:]) {
					return true
				}
			}
			return false
		}
		if i >= len(parts) {
			return false
		}
		if ok, err := path.Match(want, parts[i]); err != nil || !ok {
			return false
		}
	}
	return len(pattern) == len(parts)
}
