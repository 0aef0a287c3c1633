# The router: stateless, as many replicas as you like.
#
#   nomad job run -var binary=/usr/local/bin/sandbox-router -var config="$(cat router.hcl)" jobs/router.nomad.hcl
#
# The config is the router's own file (docs/router.example.hcl); Nomad's template
# engine renders it, so it may say {{ env `NOMAD_ADDR_http` }}.
#
# A new version takes over without a failed request, if the load balancer before the
# routers follows the instances that pass in Consul: a new one counts once it is ready,
# and an old one leaves Consul before it is told to end.

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

variable "count" {
  type    = number
  default = 2
}

variable "driver" {
  type        = string
  description = "exec isolates the router from the node; raw_exec does not."
  default     = "exec"
}

variable "binary" {
  type        = string
  description = "The sandbox-router binary, as the task sees it."
  default     = "/usr/local/bin/sandbox-router"
}

variable "config" {
  type        = string
  description = "The text of the router's config file."
}

variable "port" {
  type        = number
  description = "A fixed port for all replicas, one a node; 0 for a free one."
  default     = 8080
}

variable "canary" {
  type        = number
  description = "How many new ones must be healthy, beside all the old, before the first old one ends. Needs port = 0 or nodes to spare; with 0 each old one ends first."
  default     = 0
}

variable "shutdown_delay" {
  type        = string
  description = "From leaving Consul to the router's own drain; longer than a load balancer takes to follow."
  default     = "5s"
}

variable "tls_name" {
  type        = string
  description = "With TLS at the router: a name that its certificate is for, for Consul's check. Empty for plain HTTP."
  default     = ""
}

variable "redirect_port" {
  type        = number
  description = "For redirect_listen; 0 for a free one."
  default     = 0
}

variable "metrics_port" {
  type    = number
  default = 0
}

variable "env" {
  type        = map(string)
  description = "For example NOMAD_ADDR and CONSUL_HTTP_ADDR."
  default     = {}
}

job "sandbox-router" {
  type        = "service"
  datacenters = var.datacenters

  update {
    max_parallel     = 1 # one by one: the WebSockets of one router come back before those of the next
    canary           = var.canary
    auto_promote     = var.canary > 0
    min_healthy_time = "5s"
    health_check     = "checks"
    auto_revert      = true
  }

  group "router" {
    count = var.count

    network {
      port "http" {
        static = var.port
      }
      port "redirect" {
        static = var.redirect_port
      }
      port "metrics" {
        static = var.metrics_port
      }
    }

    # Every connection is refused while no router runs: a crashed one is back at once, and
    # Nomad goes on trying.
    restart {
      attempts = 20
      interval = "1m"
      delay    = "1s"
      mode     = "delay"
    }

    task "router" {
      driver = var.driver
      # Nomad takes the router out of Consul, waits this long, sends SIGTERM (the router
      # fails readyz for drain_delay, then ends) and waits for kill_timeout at most. That is
      # longer than drain_delay, drain_timeout and the 5 s for closing WebSockets together.
      shutdown_delay = var.shutdown_delay
      kill_signal    = "SIGTERM"
      kill_timeout   = "30s"

      config {
        command = var.binary
        args    = ["-config", "${NOMAD_TASK_DIR}/router.hcl"]
      }

      env = var.env

      template {
        destination = "local/router.hcl"
        data        = var.config
        # The router reads it anew; what it can not change, it names in its log.
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      resources {
        cpu    = 500
        # 8,000 connections (limits { connections }) cost up to 60 KiB each while their
        # requests are read.
        memory = 512
      }

      service {
        name = "sandbox-router"
        port = "http"
        tags = ["openclaw"]

        meta {
          generation = NOMAD_ALLOC_ID
          node       = node.unique.name
          metrics    = NOMAD_ADDR_metrics
        }

        check {
          name            = "ready"
          type            = "http"
          protocol        = var.tls_name == "" ? "http" : "https"
          tls_server_name = var.tls_name
          tls_skip_verify = true # it asks this node about itself
          path            = "/_sandbox/readyz"
          interval        = "3s"
          timeout         = "2s"
        }
      }
    }
  }
}
