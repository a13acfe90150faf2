# Everything is built into bin/ and tested from here. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Kubernetes' metrics want a version that begins with vX.Y.Z.
VERSION ?= $(shell git describe --tags --match 'v*' --dirty 2>/dev/null || echo v0.0.0+$$(git describe --always --dirty 2>/dev/null || echo unknown))
LDFLAGS := -s -w -X k8s.io/component-base/version.gitVersion=$(VERSION)
PROGRAMS := nsxt-cloud-controller-manager nsxsim lab
# What make image makes: the image that the Deployment in manifests names.
IMAGE ?= docker.io/cloud-provider-nsxt/nsxt-cloud-controller-manager:dev
# How many packages are tested at a time: the heavy ones start whole clusters.
TEST_PARALLEL ?= 2
# What make bench measures.
BENCH_SIZES := -services 100,1000 -nodes 10,1000
ifdef FULL
BENCH_SIZES := -services 100,1000,5000 -nodes 10,100,1000
endif

# All but the tests with the race detector are compiled alike, so that each package is compiled once.
alike := $(PROGRAMS) image bin/e2e-cluster lint verify clients chaos budget bench e2e
$(alike): export CGO_ENABLED = 0
$(alike): export GOFLAGS += -trimpath

.PHONY: help build $(PROGRAMS) image bin/kube bin/e2e bin/e2e-cluster e2e e2e-full e2e-check e2e-up e2e-down demo test unit check clients chaos lint budget bench verify update clean

help: ## Show this list.
	@grep -hE '^[a-z/-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | expand -t 12

build: $(PROGRAMS) ## Build the controller, the NSX simulator and the lab into bin/.

$(PROGRAMS):
	@mkdir -p bin
	@echo "building bin/$@"
	@go build -ldflags '$(LDFLAGS)' -o bin/$@ ./cmd/$@

image: export GOOS = linux
image: nsxt-cloud-controller-manager ## Pack the controller into a container image, bin/image.tar, named IMAGE=NAME; needs no container engine.
	@GOOS= GOARCH= go run ./hack/ociimage/pack -image '$(IMAGE)' -out bin/image.tar bin/nsxt-cloud-controller-manager

bin/kube: ## Build the Kubernetes control plane and kubectl that the lab and the tests run.
	@hack/build-kube.sh

bin/e2e: ## Build what the nodes of the end-to-end tests run, and the upstream tests.
	@hack/build-e2e.sh

bin/e2e-cluster:
	@mkdir -p bin
	@go build -o bin/e2e-cluster ./test/e2e/cmd/e2e-cluster

# First that a cluster does what the tests ask of it, and goes without a trace.
E2E_CLUSTER_TEST = go tool gotestsum --format testname --junitfile .cache/e2e/junit-cluster.xml -- \
	-tags e2e -count 1 -timeout 20m -run 'TestRehearsal|TestLive' ./test/e2e/cluster

# Tests that take nothing away from others run several at a time, the upstream ones among them.
E2E_TEST = go tool gotestsum --format testname --junitfile .cache/e2e/junit.xml -- \
	-tags e2e -count 1 -timeout 60m -parallel 9 ./test/e2e -args -logs=$(CURDIR)/.cache/e2e/logs $(E2E)

e2e-check: bin/e2e-cluster ## Tell whether make e2e can run here, and what is missing.
	@bin/e2e-cluster check && hack/build-e2e.sh --check

e2e: e2e-check build bin/kube bin/e2e ## Test end to end on real nodes in network namespaces; needs root. E2E=FLAGS: see docs.
	@mkdir -p .cache/e2e
	@$(E2E_CLUSTER_TEST) && $(E2E_TEST) || { rc=$$?; bin/e2e-cluster clean; exit $$rc; }

e2e-full: E2E += -rolling-updates
e2e-full: e2e ## With the upstream tests of rolling updates too: a quarter of an hour more.

e2e-up: build bin/kube bin/e2e bin/e2e-cluster ## Start a cluster of real nodes in network namespaces, to play with; needs root.
	@bin/e2e-cluster up

e2e-down: bin/e2e-cluster ## End it, and remove what killed ones have left.
	@bin/e2e-cluster down

demo: build bin/kube ## Start a whole cluster on loopback with a Service to curl; Ctrl-C ends it.
	@bin/lab up --demo

test: lint build bin/kube unit check clients ## Run everything that must hold.

unit: build bin/kube ## Run the Go tests with the race detector, and name the slowest.
	@mkdir -p .cache
	@go tool gotestsum --format pkgname --format-hide-empty-pkg --jsonfile .cache/tests.json -- \
		-race -p $(TEST_PARALLEL) -parallel 8 -timeout 20m ./...
	@echo "slowest tests:"; go tool gotestsum tool slowest --jsonfile .cache/tests.json --threshold 2s | head -20

check: build bin/kube ## Play the scenarios of the tutorial against a fresh lab.
	@bin/lab check

clients: nsxsim ## Run other people's NSX clients, with their own tests, against the simulator.
	@hack/test-clients.sh

lint: ## Check formatting, go vet, staticcheck and everything generated.
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [[ -n $$bad ]]; then echo "not gofmt-ed: $$bad"; exit 1; fi
	@go vet ./...
	@go tool staticcheck ./...
	@go vet -tags e2e ./test/e2e/... && go tool staticcheck -tags e2e ./test/e2e/...
	@$(MAKE) --no-print-directory verify

verify: ## Check that everything generated is up to date.
	@for s in hack/verify-*.sh; do echo "$$s"; $$s; done

update: ## Make everything generated anew.
	@for s in hack/update-*.sh; do echo "$$s"; $$s; done

chaos: build bin/kube ## Let everything fail, everywhere and in every way, and check what must hold; some minutes.
	@go run ./test/chaos/run

budget: ## Count the NSX calls of every operation and hold them against their budgets.
	@go test -count=1 -run '^TestBudget' -v ./test/bench

bench: ## Measure on the simulator and write docs/performance.md; FULL=1 takes a quarter of an hour.
	@go run ./test/bench/measure $(BENCH_SIZES) -out test/bench/report/results.json
	@cd test/bench/report && go run .
	@go test -run '^$$' -bench VirtualServers ./pkg/nsxsim

clean: ## Remove what was built.
	@rm -rf bin .cache
