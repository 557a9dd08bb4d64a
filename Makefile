# Every target that CI runs is here; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
CADDY_BUILD := go build -trimpath -tags nobadger,nomysql,nopgx
# The folders of nested modules; each has a go.mod of its own. They test files of
# this one, which go test does not watch: none of their passes is taken from the cache.
MODULES := tools tools/openapi tools/ratelimit bench/index bench/peers
# How often each fuzz target runs (a time such as 10s makes Go 1.26 fail at random
# when it is over, go.dev/issue/75804), and how often a benchmark.
FUZZTIME ?= 50000x
COUNT ?= 1

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

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
	@for m in $(MODULES); do (cd $$m && go test -count=1 ./...) || exit; done

test-all: packages lint race clients fuzz crash revoke-race ## what `make test` leaves out; installs Debian packages, needs root

race: ## the tests under the race detector
	go test -race ./...

clients: ## the built binary with curl, node, Python, nginx, Prometheus, systemd, and the demo
	go test -count=1 -tags clients -run '^TestClient' -v ./cmd/caddy

packages: ## install what test-all needs from Debian, if it is missing; needs root
	@PATH=$$PATH:/usr/sbin; type -P curl gcc git nginx node prometheus promtool systemd-analyze >/dev/null && python3 -c 'import requests' 2>/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			curl gcc git libc6-dev nginx-light nodejs prometheus python3-requests systemd; }

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet -tags clients ./...
	@for m in $(MODULES); do (cd $$m && go vet ./...) || exit; done
	go run $(STATICCHECK) -tags clients ./...

fuzz: ## each fuzz target for FUZZTIME
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's,/[^/]*:func , ,' | while read -r dir target; do \
		echo "$$dir $$target"; go test -C "$$dir" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) . </dev/null || exit 1; done

# Folders with Go benchmarks.
BENCHED := ./apikey/ ./storage/boltstore/ ./caddymodule/
# Sizes of the stores that gateways are measured with.
FEW_KEYS := 10000,100000
MANY_KEYS := 10000,1000000,10000000

bench: bench-packages ## Go benchmarks and a short comparison with stock Caddy, below 5 minutes
	go test -run '^$$' -bench . -benchmem -benchtime 100ms -count $(COUNT) $(BENCHED)
	go run ./bench/measure -rounds $(or $(ROUNDS),5) -seconds $(or $(SECONDS),1) -keys $(or $(KEYS),$(FEW_KEYS)) \
		-parts duel,solo,share,issue,open -only 'stock Caddy again$$|hot keys? of 100k$$|usage off|refused'

bench-full: bench-packages ## the whole comparison, into docs/benchmarks.md; ROUNDS, SECONDS, KEYS, CYCLES
	go run ./bench/measure -rounds $(or $(ROUNDS),13) -seconds $(or $(SECONDS),2) -keys $(or $(KEYS),$(MANY_KEYS)) \
		-cycles $(or $(CYCLES),300) -docs docs

bench-compare: COUNT = 10
bench-compare: ## Go benchmarks of the revision BASE and of the working tree, by turns
	bench/compare.sh "$(BASE)" $(COUNT)

bench-packages: # what is measured with, and beside
	@type -P wrk nginx haproxy h2load >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk nginx-light haproxy nghttp2-client; }

crash: bin/caddy ## kill -9 under 64 writers, CYCLES times: nothing acknowledged is lost
	go run ./bench/crash -caddy bin/caddy -cycles $(or $(CYCLES),20)

revoke-race: bin/caddy ## revoke ROUNDS keys that 64 readers use: none is accepted afterwards
	go run ./bench/revokerace -caddy bin/caddy -rounds $(or $(ROUNDS),100)

cover: ## coverage of all packages together
	go test -coverpkg=./... -coverprofile=coverage.out ./... >/dev/null && go tool cover -func=coverage.out | tail -1

.PHONY: help demo run build test test-all race clients packages lint fuzz bench bench-full bench-compare bench-packages crash revoke-race cover
