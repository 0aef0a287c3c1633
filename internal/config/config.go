// Package config reads the router's HCL file into typed settings.
package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"

	"openclaw-sandbox/internal/forwarded"
	"openclaw-sandbox/internal/front"
	"openclaw-sandbox/internal/identity"
	"openclaw-sandbox/internal/login"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/webhook"
)

// Config are the router's settings, with durations parsed and identities checked.
type Config struct {
	Listen        string // address of the HTTP listener
	MetricsListen string // address of the metrics listener; empty for none
	Domain        string // <user>.<domain> is the user's sandbox
	Scheme        string // http or https, as browsers see it
	AccessLog     bool   // a line for each request

	TLS            *front.TLS      // of the listener; nil for plain HTTP
	RedirectListen string          // address of the plain listener beside it; empty for none
	TrustedProxies forwarded.Trust // who may say whom they forward for
	Limits         Limits

	DrainDelay   time.Duration // between failing readyz and closing the listener
	DrainTimeout time.Duration // for requests to end; then WebSockets are closed

	DevUser sandbox.User // of identity "dev"; empty when that is off
	Tokens  identity.Tokens
	JWT     []identity.JWTConfig
	Headers []identity.Header
	Login   *login.Config // of identity "oidc"; nil when that is off
	Shares  identity.Shares
	// APITokens is the prefix in Consul's key-value store, of identity "api"; empty when that is off
	APITokens string

	Webhooks []webhook.Hook // checked

	ConsulAddress string // empty: the client library's environment
	Service       string
	Shards        int

	NomadAddress, Namespace, Job string

	HoldTimeout  time.Duration // how long an API call or an upgrade is held
	StartTimeout time.Duration
	CapacityWait time.Duration
	RetryMin     time.Duration // how long a first failure is remembered; doubles with each further one
	RetryAfter   time.Duration // how long a failure is remembered at most
	MaxStarting  int           // starts at a time; 0 for no limit
	MaxQueued    int           // starts that may wait in line; 0 for no limit
	MaxSandboxes int           // live sandboxes in all; 0 for no limit
	UserStarts   int           // starts of one user an hour; 0 for no limit

	Idle Idle

	DialTimeout     time.Duration
	HeadTimeout     time.Duration // for the head of a gateway's answer; 0 is no limit
	IdleTimeout     time.Duration // of pooled connections to a gateway; it closes its own after 5 s
	ForwardedClient string        // stands for a client on loopback, which gateways refuse
}

// gatewayIdle is after how long a gateway closes an idle connection.
const gatewayIdle = 5 * time.Second

// maxShards leaves room below the 200 connections that a Consul agent allows one address.
const maxShards = 128

// NewConfig returns every default.
func NewConfig() Config {
	return Config{
		Listen: "127.0.0.1:8080", MetricsListen: "127.0.0.1:9102", Domain: "localhost", Scheme: "http",
		DrainDelay: 2 * time.Second, DrainTimeout: 20 * time.Second,
		Service: "openclaw-gateway", Shards: 1, Job: "openclaw",
		HoldTimeout: 2 * time.Minute, StartTimeout: 3 * time.Minute, CapacityWait: 10 * time.Second, RetryMin: 2 * time.Second, RetryAfter: time.Minute,
		MaxStarting: 64, MaxQueued: 1000, UserStarts: 60,
		Idle:        newIdle(),
		Limits:      defaultLimits(),
		DialTimeout: 5 * time.Second, IdleTimeout: 4 * time.Second, ForwardedClient: "192.0.2.1",
	}
}

// file is the HCL shape. Pointers tell an absent setting from an empty one.
type file struct {
	Listen        *string `hcl:"listen"`
	MetricsListen *string `hcl:"metrics_listen"`
	Domain        *string `hcl:"domain"`
	Scheme        *string `hcl:"scheme"`
	AccessLog     *bool   `hcl:"access_log"`
	DrainDelay    *string `hcl:"drain_delay"`
	DrainTimeout  *string `hcl:"drain_timeout"`

	RedirectListen *string    `hcl:"redirect_listen"`
	TrustedProxies []string   `hcl:"trusted_proxies,optional"`
	TLS            *tlsBlock  `hcl:"tls,block"`
	ACME           *acmeBlock `hcl:"acme,block"`

	Limits   *limitsBlock    `hcl:"limits,block"`
	Identity []identityBlock `hcl:"identity,block"`
	Session  *sessionBlock   `hcl:"session,block"`
	Share    []shareBlock    `hcl:"share,block"`
	Consul   *consulBlock    `hcl:"consul,block"`
	Nomad    *nomadBlock     `hcl:"nomad,block"`
	Wake     *wakeBlock      `hcl:"wake,block"`
	Idle     *idleBlock      `hcl:"idle,block"`
	Upstream *upstreamBlock  `hcl:"upstream,block"`
	Webhooks []webhookBlock  `hcl:"webhook,block"`
}

type consulBlock struct {
	Address *string `hcl:"address"`
	Service *string `hcl:"service"`
	Shards  *int    `hcl:"shards"`
}

type nomadBlock struct {
	Address   *string `hcl:"address"`
	Namespace *string `hcl:"namespace"`
	Job       *string `hcl:"job"`
}

type wakeBlock struct {
	HoldTimeout  *string `hcl:"hold_timeout"`
	StartTimeout *string `hcl:"start_timeout"`
	CapacityWait *string `hcl:"capacity_wait"`
	RetryMin     *string `hcl:"retry_min"`
	RetryAfter   *string `hcl:"retry_after"`
	MaxStarting  *int    `hcl:"max_starting"`
	MaxQueued    *int    `hcl:"max_queued"`
	MaxSandboxes *int    `hcl:"max_sandboxes"`
	UserStarts   *int    `hcl:"user_starts_per_hour"`
}

type upstreamBlock struct {
	DialTimeout     *string `hcl:"dial_timeout"`
	HeadTimeout     *string `hcl:"head_timeout"`
	IdleTimeout     *string `hcl:"idle_timeout"`
	ForwardedClient *string `hcl:"forwarded_client"`
}

// Load reads and checks a file. Its error lists every problem with file and line.
func Load(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	return Parse(text, path)
}

// Parse is Load for a text; name stands for the file in errors.
func Parse(text []byte, name string) (Config, error) {
	c := NewConfig()
	parser := hclparse.NewParser()
	parsed, diags := parser.ParseHCL(text, name)
	if diags.HasErrors() {
		return c, explain(parser, diags)
	}
	var f file
	if diags := gohcl.DecodeBody(parsed.Body, nil, &f); diags.HasErrors() {
		return c, explain(parser, diags)
	}
	diags = f.apply(&c, parsed.Body)
	if diags.HasErrors() {
		return c, explain(parser, diags)
	}
	return c, nil
}

// apply puts what the file says over the defaults.
func (f *file) apply(c *Config, body hcl.Body) hcl.Diagnostics {
	bad := problems{body: body}
	set(&c.Listen, f.Listen)
	set(&c.MetricsListen, f.MetricsListen)
	set(&c.Domain, f.Domain)
	set(&c.Scheme, f.Scheme)
	set(&c.AccessLog, f.AccessLog)
	bad.duration("drain_delay", &c.DrainDelay, f.DrainDelay, 0)
	bad.duration("drain_timeout", &c.DrainTimeout, f.DrainTimeout, 0)
	if b := f.Consul; b != nil {
		set(&c.ConsulAddress, b.Address)
		set(&c.Service, b.Service)
		set(&c.Shards, b.Shards)
	}
	if b := f.Nomad; b != nil {
		set(&c.NomadAddress, b.Address)
		set(&c.Namespace, b.Namespace)
		set(&c.Job, b.Job)
	}
	if b := f.Wake; b != nil {
		bad.duration("wake.hold_timeout", &c.HoldTimeout, b.HoldTimeout, 1)
		bad.duration("wake.start_timeout", &c.StartTimeout, b.StartTimeout, 1)
		bad.duration("wake.capacity_wait", &c.CapacityWait, b.CapacityWait, 0)
		bad.duration("wake.retry_min", &c.RetryMin, b.RetryMin, 0)
		bad.duration("wake.retry_after", &c.RetryAfter, b.RetryAfter, 0)
		bad.count("wake.max_starting", &c.MaxStarting, b.MaxStarting)
		bad.count("wake.max_queued", &c.MaxQueued, b.MaxQueued)
		bad.count("wake.max_sandboxes", &c.MaxSandboxes, b.MaxSandboxes)
		bad.count("wake.user_starts_per_hour", &c.UserStarts, b.UserStarts)
	}
	f.Idle.apply(&c.Idle, &bad)
	if b := f.Upstream; b != nil {
		bad.duration("upstream.dial_timeout", &c.DialTimeout, b.DialTimeout, 1)
		bad.duration("upstream.head_timeout", &c.HeadTimeout, b.HeadTimeout, 0)
		bad.duration("upstream.idle_timeout", &c.IdleTimeout, b.IdleTimeout, 1)
		set(&c.ForwardedClient, b.ForwardedClient)
	}
	f.applyFront(c, &bad)
	f.Limits.apply(&c.Limits, &bad)
	f.applyIdentity(c, &bad)
	f.applyShares(c, &bad)
	f.applyWebhooks(c, &bad)
	c.check(&bad)
	return bad.diags
}

// Check tells whether the settings fit each other, for a config that was not read
// from one file.
func (c Config) Check() error {
	bad := problems{}
	c.check(&bad)
	var all []error
	for _, d := range bad.diags {
		all = append(all, errors.New(d.Detail))
	}
	return errors.Join(all...)
}

func (c *Config) check(bad *problems) {
	for name, addr := range map[string]string{"listen": c.Listen, "metrics_listen": c.MetricsListen} {
		if _, _, err := net.SplitHostPort(addr); err != nil && (name == "listen" || addr != "") {
			bad.at(name, "want host:port, got %q", addr)
		}
	}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && c.DevUser != "" {
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			bad.at("listen", "identity \"dev\" lets everybody be anybody, so this must be on loopback, not %q", c.Listen)
		}
	}
	if c.Domain == "" || strings.ContainsAny(c.Domain, "/:* ") || c.Domain != strings.ToLower(c.Domain) {
		bad.at("domain", "want a lower-case host name without port, got %q", c.Domain)
	}
	if c.Scheme != "http" && c.Scheme != "https" {
		bad.at("scheme", "want \"http\" or \"https\", got %q", c.Scheme)
	}
	if c.Service == "" {
		bad.at("consul.service", "want the name that gateways register under")
	}
	if c.Job == "" {
		bad.at("nomad.job", "want the name of the parameterized job")
	}
	if c.Shards < 1 || c.Shards > maxShards {
		bad.at("consul.shards", "want 1 to %d, got %d", maxShards, c.Shards)
	}
	if c.IdleTimeout >= gatewayIdle {
		bad.at("upstream.idle_timeout", "want less than %s, after which a gateway closes the connection itself, got %s", gatewayIdle, c.IdleTimeout)
	}
	if ip := net.ParseIP(c.ForwardedClient); ip == nil || ip.IsLoopback() {
		bad.at("upstream.forwarded_client", "want an address that is not loopback, got %q", c.ForwardedClient)
	}
}

func set[T any](into, from *T) {
	if from != nil {
		*into = *from
	}
}
