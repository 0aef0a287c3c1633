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
	Client         Client
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
		Client:      defaultClient(),
		Limits:      defaultLimits(),
		DialTimeout: 5 * time.Second, IdleTimeout: 4 * time.Second, ForwardedClient: "192.0.2.1",
	}
}

// file is the HCL shape. Pointers tell an absent setting from an empty one. The tags
// are the reference, docs/router-config.md: doc says what a setting is for, default what
// it is if absent (in parentheses if that depends; without, it is required), want what
// it may be, and kinds to which kinds of identity it belongs. All but labels is optional
// to HCL: what is missing is told with everything else.
type file struct {
	Listen         *string   `hcl:"listen" default:"127.0.0.1:8080" doc:"address of the listener" want:"HOST:PORT"`
	MetricsListen  *string   `hcl:"metrics_listen" default:"127.0.0.1:9102" doc:"address of Prometheus' /metrics; \"\" for none" want:"HOST:PORT"`
	RedirectListen *string   `hcl:"redirect_listen" default:"" doc:"with TLS: a plain listener that redirects to https, and answers ACME's http-01; \"\" for none" want:"HOST:PORT"`
	Domain         *string   `hcl:"domain" default:"localhost" doc:"alice.<domain> is alice's sandbox" want:"a lower-case host name without port"`
	Scheme         *string   `hcl:"scheme" default:"http" doc:"as browsers see it: \"https\" behind a proxy that ends TLS. With tls or acme it is \"https\" anyway" want:"\"http\" or \"https\""`
	TrustedProxies []string  `hcl:"trusted_proxies,optional" default:"[]" doc:"proxies in front whose X-Forwarded-For and X-Forwarded-Proto are believed" want:"networks like \"10.0.0.2/32\", not the whole world"`
	AccessLog      *bool     `hcl:"access_log" default:"false" doc:"a line for each request, as JSON beside the other logs; never a query, a cookie or a token"`
	DrainDelay     *duration `hcl:"drain_delay" default:"2s" doc:"after SIGTERM: readyz fails for so long, and requests are still taken" want:"0s or more"`
	DrainTimeout   *duration `hcl:"drain_timeout" default:"20s" doc:"then requests may end for so long; after it WebSockets are closed with 1012" want:"0s or more"`

	TLS      *tlsBlock       `hcl:"tls,block" doc:"TLS at the router itself, with certificates from files, which are watched."`
	ACME     *acmeBlock      `hcl:"acme,block" doc:"TLS with certificates from an ACME server, on demand, one for each host."`
	Client   *clientBlock    `hcl:"client,block" doc:"Clients' connections, before anything is known of a request."`
	Limits   *limitsBlock    `hcl:"limits,block" doc:"What one user, one address and all together may have. 0 is no limit. Each router counts for itself."`
	Identity []identityBlock `hcl:"identity,block" doc:"Who may enter. Several blocks may stand side by side; the first that knows the caller decides."`
	Session  *sessionBlock   `hcl:"session,block" doc:"Of those who log in by identity \"oidc\", which needs this block."`
	Share    []shareBlock    `hcl:"share,block" doc:"Who may use a sandbox beside the user of its name."`
	Webhooks []webhookBlock  `hcl:"webhook,block" doc:"Webhooks of chat channels, which reach a sandbox without a login. Each must be signed for the sandbox's user."`
	Consul   *consulBlock    `hcl:"consul,block" doc:"Where gateways are found. Tokens and TLS come from Consul's usual environment."`
	Nomad    *nomadBlock     `hcl:"nomad,block" doc:"Where sandboxes are started. The token is NOMAD_TOKEN of the environment."`
	Wake     *wakeBlock      `hcl:"wake,block" doc:"How sandboxes are started, and how many."`
	Idle     *idleBlock      `hcl:"idle,block" doc:"When sandboxes that nobody uses are frozen and stopped. sandboxctl policy gives one user other times."`
	Upstream *upstreamBlock  `hcl:"upstream,block" doc:"Connections to gateways."`
}

type consulBlock struct {
	Address *string `hcl:"address" default:"" doc:"of the agent; empty: CONSUL_HTTP_ADDR, or the agent on this node"`
	Service *string `hcl:"service" default:"openclaw-gateway" doc:"the name that gateways register under"`
	Shards  *int    `hcl:"shards" default:"1" doc:"spreads gateways over SERVICE-0, SERVICE-1, …; from about 500 sandboxes on. The same for all routers of one job" want:"1 to 128"`
}

type nomadBlock struct {
	Address   *string `hcl:"address" default:"" doc:"of the agent; empty: NOMAD_ADDR, or the agent on this node"`
	Namespace *string `hcl:"namespace" default:"" doc:"of the job; empty: default"`
	Job       *string `hcl:"job" default:"openclaw" doc:"the parameterized job"`
}

type wakeBlock struct {
	HoldTimeout  *duration `hcl:"hold_timeout" default:"2m" doc:"how long an API call or a WebSocket upgrade is held for a start" want:"more than 0s"`
	StartTimeout *duration `hcl:"start_timeout" default:"3m" doc:"of one start, from the request to the gateway that serves" want:"more than 0s"`
	CapacityWait *duration `hcl:"capacity_wait" default:"10s" doc:"for a node with room; then the start is withdrawn" want:"0s or more"`
	RetryMin     *duration `hcl:"retry_min" default:"2s" doc:"how long a failed start is remembered, instead of trying again; doubles with each further failure" want:"0s or more"`
	RetryAfter   *duration `hcl:"retry_after" default:"1m" doc:"up to this, until a start succeeds or the user presses the button" want:"0s or more"`
	MaxStarting  *int      `hcl:"max_starting" default:"64" doc:"starts at a time by this router; further ones queue. 0: no limit" want:"0 or more"`
	MaxQueued    *int      `hcl:"max_queued" default:"1000" doc:"starts that may wait in line; beyond, 429. 0: no limit" want:"0 or more"`
	MaxSandboxes *int      `hcl:"max_sandboxes" default:"0" doc:"live sandboxes in all, as Nomad counts them; beyond, a start gets 503. 0: no limit" want:"0 or more"`
	UserStarts   *int      `hcl:"user_starts_per_hour" default:"60" doc:"of one user by this router; beyond, 429. 0: no limit" want:"0 or more"`
}

type upstreamBlock struct {
	DialTimeout     *duration `hcl:"dial_timeout" default:"5s" doc:"of a new connection to a gateway" want:"more than 0s"`
	HeadTimeout     *duration `hcl:"head_timeout" default:"0s" doc:"for the head of a gateway's answer; 0s: no limit, as an agent's turn may take long" want:"0s or more"`
	IdleTimeout     *duration `hcl:"idle_timeout" default:"4s" doc:"of a connection that is kept for the next request; the gateway closes its own after 5 s" want:"more than 0s, less than 5s"`
	ForwardedClient *string   `hcl:"forwarded_client" default:"192.0.2.1" doc:"stands for a client on loopback, which gateways refuse" want:"an address that is not loopback"`
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
	shape := gohcl.DecodeBody(parsed.Body, nil, &f)
	if diags = merge(shape, f.apply(&c, parsed.Body)); diags.HasErrors() {
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
	f.Client.apply(&c.Client, &bad)
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
	bad.hostPort("listen", c.Listen)
	if c.MetricsListen != "" {
		bad.hostPort("metrics_listen", c.MetricsListen)
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
