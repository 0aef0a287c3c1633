# The router: stateless, as many replicas as you like.
#
#   nomad job run -var binary=/usr/local/bin/sandbox-router -var config="$(cat router.hcl)" jobs/router.nomad.hcl
#
# The config is the router's own file (docs/router.example.hcl); Nomad's template
# engine renders it, so it may say {{ env `NOMAD_ADDR_http` }}.

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
    max_parallel     = 1
    min_healthy_time = "2s"
    auto_revert      = true
  }

  group "router" {
    count = var.count

    network {
      port "http" {
        static = var.port
      }
      port "metrics" {
        static = var.metrics_port
      }
    }

    task "router" {
      driver = var.driver
      # Longer than the router's drain_delay and drain_timeout together.
      kill_timeout = "30s"

      config {
        command = var.binary
        args    = ["-config", "${NOMAD_TASK_DIR}/router.hcl"]
      }

      env = var.env

      template {
        destination = "local/router.hcl"
        data        = var.config
        change_mode = "restart"
      }

      resources {
        cpu    = 500
        memory = 128
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
          name     = "ready"
          type     = "http"
          path     = "/_sandbox/readyz"
          interval = "3s"
          timeout  = "2s"
        }
      }
    }
  }
}
