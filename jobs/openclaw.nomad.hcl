# One private OpenClaw gateway per user: a parameterized job, dispatched once per
# start by the router, or by hand:
#
#   nomad job run jobs/openclaw.nomad.hcl
#   nomad job dispatch -meta user=alice openclaw
#
# The defaults are for production: Linux, bridge networking, the `sandbox` driver
# with its `image` runtime. `make dev` sets the variables that differ on one
# machine; docs/configuration.md says what each is for.

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

variable "image" {
  type        = string
  description = "Root file system of the sandbox; \"host\" takes the node's own (development only)."
  default     = "host"
}

variable "command" {
  type        = string
  description = "start.sh, as the sandbox sees it."
  default     = "/opt/openclaw/start.sh"
}

variable "user" {
  type        = string
  description = "Unix user that the gateway runs as inside the sandbox; empty for the runtime's default."
  default     = ""
}

variable "env" {
  type        = map(string)
  description = "Further environment for start.sh and the gateway; never a secret (see `secrets` below)."
  default     = {}
}

variable "cpu" {
  type        = number
  description = "MHz. A start takes about seven CPU seconds, so more is quicker."
  default     = 1000
}

variable "memory" {
  type        = number
  description = "MB. A gateway has 1.1 GB after its first chat; with a Control UI open, one was seen to pass 1.5 GB."
  default     = 2048
}

variable "network" {
  type        = string
  description = "\"bridge\": a network namespace per sandbox. \"host\": none; isolates nothing."
  default     = "bridge"
}

variable "address_mode" {
  type        = string
  description = "What Consul tells the router: \"driver\" for the address inside the namespace (router on the same node), \"host\" for the node's address and a mapped port."
  default     = "host"
}

variable "webhook_ports" {
  type        = map(number)
  description = "Ports beside the gateway's that routers may send webhooks to, by a name: { telegram = 8787 }. Needs network \"bridge\"."
  default     = {}
}

variable "trusted_proxies" {
  type        = list(string)
  description = "Addresses that the routers' connections come from, as the gateway sees them: the bridge's own, and the routers' networks."
  default     = ["172.26.64.1"]
}

variable "origins" {
  type        = list(string)
  description = "Browser origins of a user's Control UI; {user} stands for the user."
  default     = ["http://{user}.localhost:8080", "http://localhost:8080"]
}

variable "gateway_defaults" {
  type        = string
  description = "OpenClaw settings, as JSON, that a user may change: models, agents, channels."
  default     = "{}"
}

variable "snapshot_interval" {
  type        = string
  description = "How much a crash of the node may lose at most. Empty for the plugin's default."
  default     = ""
}

variable "ready_timeout" {
  type        = string
  description = "How long a gateway may take to start."
  default     = "120s"
}

variable "kill_timeout" {
  type        = string
  description = "How long a stop waits for a running turn before the gateway is killed."
  default     = "15s"
}

variable "restart_attempts" {
  type        = number
  description = "How often a gateway that failed is started again on the same node within ten minutes."
  default     = 2
}

locals {
  # Rendered by Nomad's template engine. Back quotes survive jsonencode.
  user = "{{ env `NOMAD_META_user` }}"

  operator_scopes = ["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.questions"]

  gateway = {
    mode           = "local"
    bind           = var.network == "bridge" ? "lan" : "loopback"
    trustedProxies = var.trusted_proxies
    # The router has already asked who this is. It vouches for the user by
    # header, so the Control UI opens without token or pairing.
    auth = {
      mode           = "trusted-proxy"
      identityScopes = { (local.user) = local.operator_scopes }
      trustedProxy = {
        userHeader      = "x-forwarded-user"
        requiredHeaders = ["x-forwarded-proto", "x-forwarded-host"]
        allowUsers      = [local.user]
        # Without a namespace of its own, a gateway can only be reached over
        # loopback, where every local process could forge the header.
        allowLoopback = var.network != "bridge"
        deviceAutoApprove = {
          enabled = true
          scopes  = concat(local.operator_scopes, ["operator.pairing"])
        }
      }
    }
    controlUi = {
      # The package's own files, instead of a 54 MB copy in every user's state.
      root                       = "@package@/dist/control-ui"
      allowedOrigins             = [for o in var.origins : replace(o, "{user}", local.user)]
      communityInvite            = false
      automaticallyFetchFavicons = false
    }
    http = { endpoints = { chatCompletions = { enabled = true }, responses = { enabled = true } } }
  }

  # Where routers reach them at the address that the service registers: INSIDE=OUTSIDE.
  # Nomad fills in a mapped port's number.
  webhook_ports = join(",", [for label, port in var.webhook_ports :
    "${port}=${var.address_mode == "host" ? "$${NOMAD_HOST_PORT_${label}}" : port}"
  ])

  settings = {
    defaults = jsondecode(var.gateway_defaults)
    enforced = { gateway = local.gateway, update = { checkOnStart = false } }
  }
}

job "openclaw" {
  type        = "batch" # Nomad parameterizes batch jobs only
  datacenters = var.datacenters

  parameterized {
    meta_required = ["user"]
    # generation: the last run of this user that the dispatcher knew of, for the
    # record. service: the name to register under, when there are several.
    meta_optional = ["generation", "service"]
    payload       = "forbidden"
  }

  # What a dispatch does not say. The routers' `consul { shards }` set it per user;
  # they follow this name as well, for what is dispatched by hand.
  meta {
    service = "openclaw-gateway"
  }

  group "sandbox" {
    network {
      mode = var.network
      port "gateway" {
        to = var.network == "bridge" ? 18789 : 0
      }

      dynamic "port" {
        for_each = var.webhook_ports
        labels   = [port.key]
        content {
          to = port.value
        }
      }
    }

    restart {
      attempts = var.restart_attempts
      interval = "10m"
      delay    = "2s"
      mode     = "fail"
    }

    # A sandbox whose node is gone is started by its user's next request, not by
    # the scheduler: nobody may be there to use it.
    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "gateway" {
      driver       = "sandbox"
      user         = var.user
      kill_timeout = var.kill_timeout
      kill_signal  = "SIGTERM"

      config {
        user    = NOMAD_META_user
        image   = var.image
        command = var.command
        port    = "gateway"

        ready {
          path     = "/startupz"
          contains = "\"status\":\"started\""
          timeout  = var.ready_timeout
          # The gateway answers its trusted proxies only with a client address.
          headers = { "X-Forwarded-For" = "192.0.2.1" }
        }

        snapshot {
          interval = var.snapshot_interval
        }
      }

      env = var.env

      template {
        destination = "local/gateway.json"
        data        = jsonencode(local.settings)
        change_mode = "noop"
      }

      # Provider keys: `nomad var put nomad/jobs/openclaw OPENAI_API_KEY=…`.
      template {
        destination = "secrets/model.env"
        env         = true
        change_mode = "noop"
        data        = <<-EOT
          {{- if nomadVarExists "nomad/jobs/openclaw" }}
          {{- range $k, $v := nomadVar "nomad/jobs/openclaw" }}
          {{ $k }}={{ $v.Value | toJSON }}
          {{- end }}
          {{- end }}
        EOT
      }

      resources {
        cpu    = var.cpu
        memory = var.memory
      }

      # Nomad registers a task's service after StartTask has returned, and the
      # driver returns when the gateway serves: so it begins as passing.
      service {
        name         = NOMAD_META_service
        port         = "gateway"
        address_mode = var.address_mode
        tags         = ["openclaw"]

        meta {
          user       = NOMAD_META_user
          generation = NOMAD_ALLOC_ID
          node       = node.unique.name
          job        = NOMAD_JOB_ID
          ports      = local.webhook_ports
        }

        check {
          name           = "ready"
          type           = "http"
          path           = "/startupz"
          address_mode   = var.address_mode
          interval       = "5s"
          timeout        = "4s"
          initial_status = "passing"

          header {
            X-Forwarded-For = ["192.0.2.1"]
          }

          # A gateway that is briefly busy keeps its route; one that hangs does not.
          failures_before_critical = 3
        }
      }
    }
  }
}
