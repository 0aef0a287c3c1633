# The router's config, with every setting at its default unless it says "example".
# Check a file without starting: sandbox-router -check-config -config FILE

listen         = "127.0.0.1:8080" # HTTP listener
metrics_listen = "127.0.0.1:9102" # Prometheus, at /metrics; "" for none

domain = "localhost" # alice.<domain> is alice's sandbox
scheme = "http"      # as browsers see it: "https" behind a proxy that ends TLS, and by default with tls or acme

# Proxies in front whose X-Forwarded-For and X-Forwarded-Proto are believed, as networks: ["10.0.0.2/32"].
trusted_proxies = []

# TLS at the router itself: certificates from files, which are watched, …
# tls {
#   cert_file   = "/etc/openclaw/tls/cert.pem"
#   key_file    = "/etc/openclaw/tls/key.pem"
#   min_version = "1.2" # or "1.3"; also with acme
# }
# … or from an ACME server, on demand, one for each host.
# acme {
#   domains       = []   # empty: <domain> and each <user>.<domain>
#   email         = ""   # for the server's warnings
#   cache_dir     = "/var/lib/openclaw-router/acme"
#   directory_url = ""   # empty: Let's Encrypt
#   ca_file       = ""   # whose certificate that server has, if not one of the system's
#   new_per_hour  = 10   # certificates for hosts that had none. 0: no limit
# }
redirect_listen = "" # with TLS: a plain listener that redirects to https, and answers ACME's http-01

access_log = false # a line for each request, as JSON beside the other logs; never a query, a cookie or a token

drain_delay   = "2s"  # after SIGTERM: readyz fails, requests are still taken
drain_timeout = "20s" # then requests may end; after it WebSockets are closed with 1012

client {
  head_timeout = "10s"   # for the head of a request to come
  idle_timeout = "2m"    # of a connection between two requests
  max_head     = "64KiB" # of a request; beyond, 431
}

limits { # 0: no limit
  max_body                        = "0"   # of a request, like "64MiB"; beyond, 413
  requests_per_minute_per_user    = 3000  # beyond, 429
  requests_per_minute_per_address = 6000  # an IPv6 address counts as its /64
  burst                           = 1000  # requests at once, of either
  websockets_per_user             = 100   # open ones; beyond, 429
  connections_per_address         = 1000  # open ones; beyond, they are closed. Not of trusted_proxies
  max_connections                 = 8000  # likewise, of all
}

# Who may enter; several blocks may stand side by side. Example:
identity "token" {
  # sha256: printf %s "$TOKEN" | sha256sum
  token "alice" {
    sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    role   = "user" # their own sandbox; "admin": every sandbox
  }
}

# Tokens that `sandboxctl token` makes and revokes.
# identity "api" {
#   prefix = "openclaw/token/" # where they are, in Consul's key-value store
# }

# Login at an OpenID Connect provider, JWTs, an authenticating proxy's header: see configuration.md.
# identity "oidc" {
#   issuer             = "https://dex.example.com"
#   client_id          = "openclaw"
#   client_secret_file = "/etc/openclaw/client"
#   scopes             = ["email", "groups"] # beside openid
#   email_domain       = "example.com"       # NAME@example.com is the user NAME
#   claim              = "email"             # who somebody is; "sub" without email_domain
#   users              = { "Ann.Lee@example.com" = "ann" } # those whose id is another
#   admins             = ["ops@example.com"] # values of the claim
#   groups_claim       = "groups"
#   admin_group        = "ops"
#   required_group     = ""                  # whoever is not in it may not enter
# }
# session {
#   key_files         = ["/etc/openclaw/session.key"]
#   lifetime          = "12h"
#   provider_timeout  = "10s"
#   logins_per_minute = 20
# }

# identity "jwt" {
#   issuer   = "https://TEAM.cloudflareaccess.com"
#   jwks_url = "https://TEAM.cloudflareaccess.com/cdn-cgi/access/certs"
#   audience = "AUD-TAG-OF-THE-APPLICATION"
#   header   = "Cf-Access-Jwt-Assertion" # without: Authorization: Bearer
# }
# identity "header" {
#   header   = "X-Auth-Request-Email"
#   networks = ["10.0.0.2/32"] # of the proxy only
# }

# Everybody is anybody, without login. Refused unless listen is on loopback.
# identity "dev" {
#   user = "me" # whose sandbox is meant where a URL names none
# }

# Who may use a sandbox beside the user of its name: see configuration.md.
# share "team-x" {
#   users  = ["alice", "bob"]
#   groups = []
# }

# Webhooks of chat channels, which reach a sandbox without a login: see webhooks.md. Example, with the defaults of the signature "slack":
# webhook "slack" {
#   path         = "/slack/events" # below a sandbox's address; all below it if it ends in "/". Not below /_sandbox/, /api/, /u/
#   methods      = ["POST"]
#   signature    = "slack"               # or "telegram", "line", "signed"
#   secrets_dir  = "/etc/openclaw/slack" # a file per user, named like the user, with the channel's secret; or, with "telegram" and "signed",
#   secret_files = []                    # files with a master secret of `openssl rand -base64 32`: the first is the current one
#   max_body     = 1048576               # bytes
#   per_minute   = 120                   # of one user, that this router lets through; beyond, 429
#   hold         = "2s"                  # how long a request waits for a start; "1s" with "line", "25s" with "telegram" and "signed"
#   port         = 0                     # another port of the sandbox than the gateway's own; the job's webhook_ports opens it
# }

consul {
  address = ""                 # empty: CONSUL_HTTP_ADDR, or the agent on this node
  service = "openclaw-gateway" # the name that gateways register under
  shards  = 1                  # up to 128: spreads gateways over SERVICE-0, SERVICE-1, …; from about 500 sandboxes on
}

nomad {
  address   = ""         # empty: NOMAD_ADDR, or the agent on this node; token by NOMAD_TOKEN
  namespace = ""         # empty: default
  job       = "openclaw" # the parameterized job
}

wake {
  hold_timeout  = "2m"  # how long an API call or a WebSocket upgrade is held
  start_timeout = "3m"  # of one start
  capacity_wait = "10s" # for a node with room; then the start is withdrawn
  retry_min     = "2s"  # how long a failed start is remembered, instead of trying again; doubles with each failure,
  retry_after   = "1m"  # up to this, until a start succeeds or the user presses the button

  max_starting         = 64   # starts at a time by this router; further ones queue. 0: no limit
  max_queued           = 1000 # starts that may wait in line; beyond, 429. 0: no limit
  max_sandboxes        = 0    # live sandboxes in all, as Nomad counts them; beyond, a start gets 503. 0: no limit
  user_starts_per_hour = 60   # of one user by this router; beyond, 429. 0: no limit
}

idle {
  freeze_after = "5m"  # after the last client was connected; 0s: never
  stop_after   = "30m" # after the last activity, open page or not; 0s: never
  wake_ahead   = "30s" # how long before a scheduled job a stopped sandbox is started
  period       = "10s" # how often routers tell each other what clients do, and one of them looks
}

upstream {
  dial_timeout     = "5s"
  head_timeout     = "0s"        # for the head of a gateway's answer; 0s: no limit, as an agent's turn may take long
  idle_timeout     = "4s"        # shorter than the gateway's own 5 s
  forwarded_client = "192.0.2.1" # stands for a client on loopback, which gateways refuse
}
