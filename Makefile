# Every target that CI runs is here; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
CADDY_BUILD := go build -trimpath -tags nobadger,nomysql,nopgx
# The folders of nested modules; each has a go.mod of its own.
MODULES := tools
# How long each fuzz target runs, and how often a benchmark.
FUZZTIME ?= 10s
COUNT ?= 1

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: bin/caddy ## build, start a gateway before a demo API, and walk through it
	@CADDY=$(CURDIR)/bin/caddy demo/demo.sh

run: bin/caddy ## run Caddy with Caddyfile.example
	bin/caddy run --config Caddyfile.example

build: ## build ./caddy from xcaddy.json
	go run ./cmd/build

.PHONY: bin/caddy
bin/caddy:
	$(CADDY_BUILD) -o $@ ./cmd/caddy

test: ## all tests that need Go only
	go vet ./...
	go test ./...
	@for m in $(MODULES); do (cd $$m && go test ./...) || exit; done

test-all: packages lint race clients fuzz ## everything: installs Debian packages, needs root

race: ## the tests under the race detector
	go test -race ./...

clients: ## the built binary with curl, node, Python, Prometheus, and the demo
	go test -count=1 -tags clients -run 'Client|Prometheus|Demo|Build' -v ./cmd/...

packages:
	@command -v curl node promtool prometheus >/dev/null && python3 -c 'import requests' 2>/dev/null || \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq curl nodejs python3-requests prometheus)

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet -tags clients ./...
	go run $(STATICCHECK) -tags clients ./...

fuzz: ## each fuzz target for FUZZTIME
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's,/[^/]*:func , ,' | while read -r dir target; do \
		echo "$$dir $$target"; go test "$$dir" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) || exit 1; done

bench: ## Go benchmarks of what every request pays
	go test -run '^$$' -bench . -benchmem -count $(COUNT) ./apikey/ ./storage/boltstore/ ./caddymodule/

cover: ## coverage of all packages together
	go test -coverpkg=./... -coverprofile=coverage.out ./... >/dev/null && go tool cover -func=coverage.out | tail -1

.PHONY: help demo run build test test-all race clients packages lint fuzz bench cover
