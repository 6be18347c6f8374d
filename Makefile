# Sluice. `make help` lists what a person types; .ci/run and the README use the same targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
SLUICE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice
# One target folder for every checkout of this user: a fresh clone compiles only our own crates.
export SLUICE_CACHE
export CARGO_TARGET_DIR ?= $(SLUICE_CACHE)/target
# Cargo tells one checkout's crates from another's by their age alone: coming from another one, all of ours are new.
$(shell mkdir -p '$(CARGO_TARGET_DIR)'; [ "$$(cat '$(CARGO_TARGET_DIR)/checkout' 2>/dev/null)" = '$(CURDIR)' ] \
  || { git ls-files -z '*.rs' '*.toml' | xargs -0 touch -c; echo '$(CURDIR)' > '$(CARGO_TARGET_DIR)/checkout'; })

# A person at a terminal sees cargo's own progress; a log gets a line a step.
export CARGO_QUIET := $(shell [ -t 2 ] || echo -q)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
test: ## everything CI runs: format, unit, lint, licences, then all tests on the local stack
	@.ci/phases.sh
unit: ## only what needs no Kafka, Redis or Kubernetes
	@.ci/phases.sh format pure build unit
lint: ## format, clippy, licences
	@.ci/phases.sh format lint licenses
generate: ## rewrite the generated files (CRDs)
	@mkdir -p config/crds && cargo run -q -p sluice-crds --bin crdgen -- config/crds
images: ## build both images, as they ship, and load them into the stack (PROFILE=dev: quicker to compile, larger)
	@e2e/images.sh $(or $(PROFILE),release)
stack: ## Kubernetes, Kafka and Redis on this machine: installs what is missing, starts or repairs (FRESH=1: with empty data)
	@echo "compiling the tool that runs the stack (some minutes the first time)" >&2
	@cargo build $(CARGO_QUIET) --locked -p sluice-e2e --bin stack
	@cargo run -q --locked -p sluice-e2e --bin stack -- up $(if $(FRESH),--fresh)
stack-down: ## end the local stack and remove its data
	@cargo run -q -p sluice-e2e --bin stack -- down
stack-status: ## every part of the local stack with its state and memory
	@cargo run -q -p sluice-e2e --bin stack -- status
stack-install: ## only install and build what the local stack needs
	@cargo run -q -p sluice-e2e --bin stack -- install
# On an existing cluster (KUBECONFIG, KAFKA_BROKERS and REDIS_ADDRESSES are set) nothing is started and no image is built.
existing := $(and $(KUBECONFIG),$(KAFKA_BROKERS),$(REDIS_ADDRESSES))
in_stack = $(if $(existing),,$(CARGO_TARGET_DIR)/debug/stack exec -- )
demo: ## the whole product once, with a worker killed in the middle, and the proof (ORDERS=50000 RATE=2500 SEED=…); also on a cluster of yours: see README
	@$(if $(existing),,$(if $(KAFKA_BROKERS)$(REDIS_ADDRESSES),$(error for an existing cluster set all of KUBECONFIG, KAFKA_BROKERS and REDIS_ADDRESSES)))
	@$(if $(existing),,$(MAKE) --no-print-directory stack images)
	@echo "compiling the demo" >&2; cargo build $(CARGO_QUIET) --locked -p sluice-e2e --bins
	@$(in_stack)$(CARGO_TARGET_DIR)/debug/demo
demo-down: stack-down ## end the demo and the stack
bench: ## scenario S1 at full speed beside what its parts can do; writes docs/bench.md
	@cargo build -q --release --locked -p sluice-worker
	@cargo build -q --locked -p sluice-e2e --bins
	@$(if $(existing),,cargo run -q -p sluice-e2e --bin stack -- up --only kafka,redis)
	@SLUICE_WORKER_BIN=$(CARGO_TARGET_DIR)/release/sluice-worker $(in_stack)$(CARGO_TARGET_DIR)/debug/bench
sim: ## the autoscaler against HPA and KEDA on simulated traces; writes docs/autoscaling.md and its plots
	@cargo run -q --locked -p sluice-autoscaler --bin sim -- docs
campaign: ## the data path under faults, again and again with other seeds (SEEDS=10)
	@cargo build -q --locked -p sluice-worker
	@cargo build -q --locked -p sluice-e2e --bins
	@SLUICE_CAMPAIGN=$(or $(SEEDS),10) $(in_stack)cargo test -q --locked --workspace --test 'datapath_*' -- --test-threads=1
scaling: ## workers that follow steps and bursts on the local stack (RATE=… orders a second), and the judge; writes docs/autoscaling/live.md
	@$(MAKE) --no-print-directory stack FRESH=1; $(MAKE) --no-print-directory images PROFILE=dev
	@$(in_stack)cargo test -q --locked --workspace --test operator_load -- --ignored --nocapture
# Both begin with an empty cluster: the operator of an earlier demo would refuse these namespaces and stop their workers.
PIPELINES ?= 3000
many: ## thousands of pipelines that sleep, on the local stack (PIPELINES=3000): sweep, memory, Kafka requests; writes docs/autoscaling/many.md
	@cargo build -q --release --locked -p sluice-operator
	@$(MAKE) --no-print-directory stack FRESH=1
	@SLUICE_OPERATOR_BIN=$(CARGO_TARGET_DIR)/release/sluice-operator PIPELINES=$(PIPELINES) \
	  $(in_stack)cargo test -q --locked --workspace --test operator_many -- --ignored --nocapture
shell: ## a shell in the stack's network, with kubectl, helm and Kafka's tools
	@cargo build -q -p sluice-e2e --bins
	@$(in_stack)bash
.PHONY: help test unit lint generate images stack stack-down stack-status stack-install demo demo-down bench sim campaign scaling many shell
