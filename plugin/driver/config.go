package driver

import (
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
	"openclaw-sandbox/plugin/egress"
)

// Config is the plugin's config in the Nomad agent, plugin "sandbox" { config { … } }.
type Config struct {
	Runtime  string         `codec:"runtime"`
	DataDir  string         `codec:"data_dir"`
	Store    StoreConfig    `codec:"store"`
	Snapshot SnapshotConfig `codec:"snapshot"`
	History  HistoryConfig  `codec:"history"`
	// Encryption of the stored states; off without keys.
	Encryption EncryptionConfig `codec:"encryption"`
	Egress     EgressConfig     `codec:"egress"`
	Freeze     FreezeConfig     `codec:"freeze"`
	// MetricsFile is for node_exporter's textfile collector; empty for none.
	MetricsFile string `codec:"metrics_file"`
}

// EncryptionConfig names the master keys: a file each, 32 bytes in base64.
type EncryptionConfig struct {
	Keys   map[string]string `codec:"keys"`
	Active string            `codec:"active"`
}

// StoreConfig says where the users' state is kept.
type StoreConfig struct {
	URL             string `codec:"url"`
	Endpoint        string `codec:"endpoint"`
	Region          string `codec:"region"`
	AccessKeyID     string `codec:"access_key_id"`
	SecretAccessKey string `codec:"secret_access_key"`
	PathStyle       bool   `codec:"path_style"`
}

// SnapshotConfig says when and what is saved.
type SnapshotConfig struct {
	// Interval is how much a crash may lose at most; changes that have settled for
	// Debounce are saved sooner. The gateway's signs of life alone wait for Quiet.
	Interval string `codec:"interval"`
	Debounce string `codec:"debounce"`
	Quiet    string `codec:"quiet"`
	// Timeout bounds one claim and one save, RestoreTimeout one restore.
	Timeout        string   `codec:"timeout"`
	RestoreTimeout string   `codec:"restore_timeout"`
	Excludes       []string `codec:"excludes"`
	MaxBytes       int64    `codec:"max_bytes"`
	MaxFiles       int64    `codec:"max_files"`
	// UnfinishedWait is how long a start waits for the last save of a run on another
	// node; UnfinishedStart says whether it then begins from the one before.
	UnfinishedWait string `codec:"unfinished_wait"`
	// Template is the user whose newest snapshot a new user begins with.
	Template        string `codec:"template"`
	UnfinishedStart bool   `codec:"unfinished_start"`
	// MaxSpooled is how many states may wait on this node for the store before it
	// takes no further sandbox; 0 is no limit.
	MaxSpooled int `codec:"max_spooled"`
}

// HistoryConfig says which older snapshots stay.
type HistoryConfig struct {
	Every  string `codec:"every"`
	Last   int    `codec:"last"`
	Hourly int    `codec:"hourly"`
	Daily  int    `codec:"daily"`
	// Grace is how long nothing may name a stored segment before it is deleted.
	Grace string `codec:"grace"`
}

// FreezeConfig says what becomes of a frozen sandbox's memory: with PageOut it is
// pushed out of RAM when the sandbox has been frozen for PageOutAfter.
type FreezeConfig struct {
	PageOut      bool   `codec:"page_out"`
	PageOutAfter string `codec:"page_out_after"`
}

// EgressConfig says what sandboxes may reach.
type EgressConfig struct {
	Enabled bool     `codec:"enabled"`
	Bridge  string   `codec:"bridge"`
	Allow   []string `codec:"allow"`
	Deny    []string `codec:"deny"`
}

func attr(name, kind, fallback string) *hclspec.Spec {
	return hclspec.NewDefault(hclspec.NewAttr(name, kind, false), hclspec.NewLiteral(fallback))
}

// block is an optional block whose fields have their defaults also when it is absent.
func block(name, defaults string, fields map[string]*hclspec.Spec) *hclspec.Spec {
	return hclspec.NewDefault(hclspec.NewBlock(name, false, hclspec.NewObject(fields)), hclspec.NewLiteral(defaults))
}

var configSpec = hclspec.NewObject(map[string]*hclspec.Spec{
	"runtime":      attr("runtime", "string", `"image"`),
	"data_dir":     attr("data_dir", "string", `"/var/lib/openclaw-sandbox"`),
	"metrics_file": attr("metrics_file", "string", `""`),
	"store": hclspec.NewBlock("store", true, hclspec.NewObject(map[string]*hclspec.Spec{
		"url":               hclspec.NewAttr("url", "string", true),
		"endpoint":          attr("endpoint", "string", `""`),
		"region":            attr("region", "string", `"auto"`),
		"access_key_id":     attr("access_key_id", "string", `""`),
		"secret_access_key": attr("secret_access_key", "string", `""`),
		"path_style":        attr("path_style", "bool", "false"),
	})),
	"snapshot": block("snapshot", `{ interval = "60s", debounce = "5s", quiet = "5m", timeout = "60s", restore_timeout = "15m", excludes = [], max_bytes = 21474836480, max_files = 2000000, unfinished_wait = "15s", unfinished_start = true, template = "", max_spooled = 100 }`, map[string]*hclspec.Spec{
		"interval":        attr("interval", "string", `"60s"`),
		"debounce":        attr("debounce", "string", `"5s"`),
		"quiet":           attr("quiet", "string", `"5m"`),
		"timeout":         attr("timeout", "string", `"60s"`),
		"restore_timeout": attr("restore_timeout", "string", `"15m"`),
		"excludes":        attr("excludes", "list(string)", "[]"),
		"max_bytes":       attr("max_bytes", "number", "21474836480"),
		"max_files":       attr("max_files", "number", "2000000"),

		"unfinished_wait":  attr("unfinished_wait", "string", `"15s"`),
		"unfinished_start": attr("unfinished_start", "bool", "true"),
		"template":         attr("template", "string", `""`),
		"max_spooled":      attr("max_spooled", "number", "100"),
	}),
	"history": block("history", `{ every = "10m", last = 20, hourly = 24, daily = 14, grace = "24h" }`, map[string]*hclspec.Spec{
		"every":  attr("every", "string", `"10m"`),
		"last":   attr("last", "number", "20"),
		"hourly": attr("hourly", "number", "24"),
		"daily":  attr("daily", "number", "14"),
		"grace":  attr("grace", "string", `"24h"`),
	}),
	"encryption": block("encryption", `{ keys = {}, active = "" }`, map[string]*hclspec.Spec{
		"keys":   hclspec.NewBlockAttrs("keys", "string", false),
		"active": attr("active", "string", `""`),
	}),
	"egress": block("egress", `{ enabled = true, bridge = "nomad", allow = [], deny = ["169.254.0.0/16", "fd00:ec2::/32"] }`, map[string]*hclspec.Spec{
		"enabled": attr("enabled", "bool", "true"),
		"bridge":  attr("bridge", "string", `"nomad"`),
		"allow":   attr("allow", "list(string)", "[]"),
		"deny":    attr("deny", "list(string)", `["169.254.0.0/16", "fd00:ec2::/32"]`),
	}),
	"freeze": block("freeze", `{ page_out = true, page_out_after = "30s" }`, map[string]*hclspec.Spec{
		"page_out":       attr("page_out", "bool", "true"),
		"page_out_after": attr("page_out_after", "string", `"30s"`),
	}),
})

// settings are a Config, checked and typed.
type settings struct {
	dataDir  string
	interval time.Duration
	debounce time.Duration // of changes
	quiet    time.Duration // between saves of nothing but signs of life
	timeout  time.Duration // of a claim and of a save
	restore  time.Duration // of a restore
	snapshot snapshot.Options
	grace    time.Duration // of segments that nothing names

	unfinishedWait  time.Duration
	unfinishedStart bool
	maxSpooled      int64         // 0 is no limit
	template        sandbox.User  // "" for none
	egress          *egress.Rules // nil when off
	metricsFile     string        // "" for none
	pageOut         bool
	pageOutAfter    time.Duration // after a freeze
}

// minInterval keeps below the one write a second to one key that R2 advises.
const minInterval = time.Second

// minGrace is longer than any save or restore that could be about to name a segment.
const minGrace = time.Hour

// check returns the typed settings, or an error that names the field.
func (c Config) check() (settings, error) {
	s := settings{dataDir: c.DataDir, snapshot: snapshot.DefaultOptions()}
	if !filepath.IsAbs(c.DataDir) || filepath.Clean(c.DataDir) == "/" {
		return s, fmt.Errorf("data_dir: want an absolute path of a folder of our own, got %q", c.DataDir)
	}
	if s.metricsFile = c.MetricsFile; s.metricsFile != "" && (!filepath.IsAbs(s.metricsFile) || filepath.Ext(s.metricsFile) != ".prom") {
		return s, fmt.Errorf("metrics_file: want an absolute path that ends with .prom, as node_exporter reads no other, got %q", c.MetricsFile)
	}
	var err error
	if s.interval, err = duration("snapshot.interval", c.Snapshot.Interval, minInterval); err != nil {
		return s, err
	}
	if s.debounce, err = duration("snapshot.debounce", c.Snapshot.Debounce, 0); err != nil {
		return s, err
	}
	if s.quiet, err = duration("snapshot.quiet", c.Snapshot.Quiet, 0); err != nil {
		return s, err
	}
	if s.timeout, err = duration("snapshot.timeout", c.Snapshot.Timeout, time.Second); err != nil {
		return s, err
	}
	if s.restore, err = duration("snapshot.restore_timeout", c.Snapshot.RestoreTimeout, time.Second); err != nil {
		return s, err
	}
	s.snapshot.Excludes = append(s.snapshot.Excludes, c.Snapshot.Excludes...)
	if err := snapshot.CheckExcludes(s.snapshot.Excludes); err != nil {
		return s, fmt.Errorf("snapshot.excludes: %w", err)
	}
	if c.Snapshot.MaxBytes <= 0 || c.Snapshot.MaxFiles <= 0 {
		return s, errors.New("snapshot.max_bytes and snapshot.max_files must be above zero")
	}
	s.snapshot.MaxBytes, s.snapshot.MaxFiles = c.Snapshot.MaxBytes, c.Snapshot.MaxFiles
	if s.unfinishedWait, err = duration("snapshot.unfinished_wait", c.Snapshot.UnfinishedWait, 0); err != nil {
		return s, err
	}
	if c.Snapshot.Template != "" {
		if s.template, err = sandbox.ParseUser(c.Snapshot.Template); err != nil {
			return s, fmt.Errorf("snapshot.template: %w", err)
		}
	}
	s.unfinishedStart = c.Snapshot.UnfinishedStart
	if c.Snapshot.MaxSpooled < 0 {
		return s, errors.New("snapshot.max_spooled must not be below zero")
	}
	s.maxSpooled = int64(c.Snapshot.MaxSpooled)
	keep := &s.snapshot.Retention
	if keep.Every, err = duration("history.every", c.History.Every, 0); err != nil {
		return s, err
	}
	if s.grace, err = duration("history.grace", c.History.Grace, minGrace); err != nil {
		return s, err
	}
	if c.History.Last < 0 || c.History.Hourly < 0 || c.History.Daily < 0 {
		return s, errors.New("history.last, history.hourly and history.daily must not be below zero")
	}
	keep.Last, keep.Hourly, keep.Daily = c.History.Last, c.History.Hourly, c.History.Daily
	if s.snapshot.Keys, err = snapshot.ReadKeys(c.Encryption.Keys, c.Encryption.Active); err != nil {
		return s, fmt.Errorf("encryption: %w", err)
	}
	if (c.Store.AccessKeyID == "") != (c.Store.SecretAccessKey == "") {
		return s, errors.New("store.access_key_id and store.secret_access_key: set both, or neither to use the agent's environment")
	}
	s.pageOut = c.Freeze.PageOut
	if s.pageOutAfter, err = duration("freeze.page_out_after", c.Freeze.PageOutAfter, 0); err != nil {
		return s, err
	}
	if c.Egress.Enabled && c.Runtime != "raw_exec" {
		s.egress = &egress.Rules{Bridge: c.Egress.Bridge, Allow: c.Egress.Allow, Deny: c.Egress.Deny}
		if err := s.egress.Check(); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (c StoreConfig) objstore() objstore.Config {
	return objstore.Config{URL: c.URL, Endpoint: c.Endpoint, Region: c.Region,
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, PathStyle: c.PathStyle}
}

func duration(field, text string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < least {
		return 0, fmt.Errorf("%s: want a duration of at least %s, like \"60s\", got %q", field, least, text)
	}
	return d, nil
}

// owner is the numeric user and group of a Unix user name; -1 for none.
func owner(name string) (uid, gid int, err error) {
	if name == "" {
		return -1, -1, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("user: %q is not a user of this node: %w", name, err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}
