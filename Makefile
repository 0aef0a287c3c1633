# `make dev` runs everything on this machine, `make test` passes all tests; both
# install what they need first.

CACHE  ?= $(shell tools/install --where)
ARGS   ?=
ROUNDS ?= 5
USERS  ?= 1000

.PHONY: help
help: ## say what the targets do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: dev
dev: tools build ## run it all here: Consul, Nomad, S3, a demo model, the driver, the router (ARGS="-help" lists options)
	@bin/dev $(ARGS)

.PHONY: test
test: ## unit, integration and end-to-end tests, with the race detector
	@tools/install --test
	@$(MAKE) --no-print-directory check
	go build -race ./...
	go run ./test/report -race -count=1 -timeout 20m $$(go list ./... | grep -v /test/)
	go run ./test/report -race -count=1 -timeout 60m -p 1 ./test/...

.PHONY: bench
bench: bench-start ## measure, and write the tables into docs/benchmarks.md (root; ROUNDS=5)
	go run ./test/bench/wake -out docs/benchmarks.md
	go run ./test/bench/catalog -out docs/benchmarks.md
	go run ./test/bench/idle -out docs/benchmarks.md

.PHONY: bench-start
bench-start: tools build ## measure starts and thaws of the real gateway only (ROUNDS=5)
	go run ./test/bench/start -rounds $(ROUNDS) -out docs/benchmarks.md
	go run ./test/bench/freeze -rounds $(ROUNDS) -out docs/benchmarks.md

.PHONY: bench-state
bench-state: ## measure restores and saves beside other programs, likewise (ROUNDS=5)
	@tools/install --bench-state
	go run ./test/bench/state -rounds $(ROUNDS) -out docs/benchmarks.md

.PHONY: bench-router
bench-router: ## measure the router beside nginx, haproxy, Caddy and others, likewise (ROUNDS=5)
	@tools/install --bench-router
	go build -o bin/sandbox-router ./cmd/sandbox-router
	go run ./test/bench/router -rounds $(ROUNDS) -out docs/benchmarks.md

.PHONY: soak
soak: ## 10,000 idle and 200 busy WebSockets with churn, for some minutes, through one router
	@tools/install
	SOAK=full go test -count=1 -v -timeout 30m ./test/soak

.PHONY: wake
wake: ## USERS=1000 users who wake at once through three routers, with a router killed and Consul and Nomad restarted
	@tools/install
	WAKE_USERS=$(USERS) go test -count=1 -v -timeout 30m ./test/wake

.PHONY: check
check: ## formatting, vet, file sizes, config example
	@test -z "$$(gofmt -l cmd deploy internal plugin test)" || { echo "not formatted:"; gofmt -l cmd deploy internal plugin test; exit 1; }
	@long=$$(git ls-files '*.go' '*.mjs' '*.sh' '*.hcl' | xargs wc -l | awk '$$2 != "total" && $$1 > 400'); test -z "$$long" || { echo "longer than 400 lines:"; echo "$$long"; exit 1; }
	go vet ./...
	go run ./cmd/sandbox-router -check-config -config docs/router.example.hcl

.PHONY: build
build: ## build the driver, the router, sandboxctl and the dev program into bin/
	go build -o bin/sandbox ./plugin
	go build -o bin/sandbox-router ./cmd/sandbox-router
	go build -o bin/sandboxctl ./cmd/sandboxctl
	go build -o bin/dev ./deploy/dev

.PHONY: tools
tools: ## build or find Nomad, Consul and the S3 server, install Node and OpenClaw, into the cache
	@tools/install

IMAGE       ?= openclaw-sandbox:$(shell . tools/versions; echo $$OPENCLAW)
IMAGE_FLAGS ?=

.PHONY: image
image: ## build the sandbox's image with Docker (IMAGE=name, IMAGE_FLAGS="--build-arg=BASE=...")
	docker build -t $(IMAGE) $(shell . tools/versions; echo --build-arg=NODE_VERSION=$$NODE --build-arg=OPENCLAW_VERSION=$$OPENCLAW) $(IMAGE_FLAGS) docker

.PHONY: clean
clean: ## remove what was built here; the cache and the dev state stay
	rm -rf bin test-artifacts
