# The interface for people and for CI alike. `make help` lists the verbs.

comma := ,
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# What is expensive lives in the user's cache, keyed by content: the Kubernetes programs by their sources, compiled
# dependencies by cargo's own fingerprints. A fresh clone on a used machine is warm.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/outrigger
export CARGO_TARGET_DIR ?= $(CACHE)/target
# Clones in other folders leave their own builds behind; above this many MB the folder is emptied and built anew.
CACHE_LIMIT := 30000

CARGO_FLAGS := --locked
CLUSTER := $(CARGO_TARGET_DIR)/debug/cluster
DEMO := $(CARGO_TARGET_DIR)/debug/demo
# Tiers by the names of test programs: `api` and `chart` need a real API server, `cluster` a whole node; others need neither.
TESTS := $(notdir $(basename $(wildcard */tests/*.rs lib/*/tests/*.rs))) \
	$(notdir $(patsubst %/main.rs,%,$(wildcard */tests/*/main.rs lib/*/tests/*/main.rs)))
API_TESTS := api apiserver chart definitions
CLUSTER_TESTS := cluster
FUZZ_TARGETS := $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))
UNIT_TESTS := $(sort $(filter-out $(API_TESTS) $(CLUSTER_TESTS),$(TESTS)))

# Prints what a recipe does and, at its end, how long it took.
define timed
	@start=$$SECONDS; printf '==> %s\n' "$(1)"; $(2); printf '==> %s: %d s\n' "$(1)" "$$((SECONDS - start))"
endef

.PHONY: help demo test test-unit test-api test-cluster rotations rotations-pods injection races outages upstream-encoder prove bench bench-signing bench-fanout bench-admission fuzz lint check generate kubernetes cluster cluster-down recording images tools prepared-cache

help: ## List the verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: tools ## The main job on a real Kubernetes, narrated; CONTEXT=name uses that kubeconfig context
	@$(DEMO) --context "$(CONTEXT)"

test: check test-unit test-api test-cluster ## All tests in three tiers; leaves nothing running

test-unit: prepared-cache ## Decisions as pure functions, and programs on loopback
	$(call timed,unit tests,cargo test $(CARGO_FLAGS) --workspace --lib --bins $(addprefix --test ,$(UNIT_TESTS)))

test-api: kubernetes ## Against a real API server
	$(call timed,tests against a real API server,cargo test $(CARGO_FLAGS) --workspace $(addprefix --test ,$(API_TESTS)))

test-cluster: kubernetes images ## On a full node with real pods
	$(call timed,tests on a real cluster,cargo test $(CARGO_FLAGS) --workspace $(addprefix --test ,$(CLUSTER_TESTS)))

rotations: kubernetes ## Three rotations of the root under load, as processes against a real API server
	@cargo build $(CARGO_FLAGS) --quiet -p outrigger-sentry -p outrigger-operator -p outrigger-injector -p outrigger-sidecar -p outrigger-e2e --bins
	$(call timed,rotations,$(CARGO_TARGET_DIR)/debug/rotations)

rotations-pods: kubernetes images ## The same in real pods, with the chart's sentry and mounts that the kubelet refreshes
	$(call timed,rotations in pods,$(CARGO_TARGET_DIR)/debug/rotations --pods)

injection: kubernetes images ## Jobs and first calls 20 times, 50 pods while no injector runs, restarts of all under policy Fail; ONLY=name for one
	$(call timed,injection,$(CARGO_TARGET_DIR)/debug/injection $(ONLY))

races: kubernetes ## Sentry replicas that start at once, 50 times: one root each time
	$(call timed,races of sentry replicas,OUTRIGGER_SENTRY_RACES=50 cargo test $(CARGO_FLAGS) -p outrigger-sentry --test api replicas_that_start_at_once)

outages: kubernetes ## Sidecars while the API server is away for a minute, among watches that break and requests that are refused
	$(call timed,a minute without an API server,OUTRIGGER_API_SERVER_AWAY=60 cargo test $(CARGO_FLAGS) -p outrigger-operator --test apiserver whatever_happens)

upstream-encoder: kubernetes ## Upstream's own encoder judges what sidecars are sent
	$(call timed,what upstream sends,cargo test $(CARGO_FLAGS) -p outrigger-crds --test api upstream -- --ignored)

prove: rotations rotations-pods injection races outages upstream-encoder ## What is too long for CI: all of these, and the cluster suite REPEAT times (default 5)
	@for round in $$(seq 1 $(or $(REPEAT),5)); do echo "==> round $$round"; $(MAKE) --no-print-directory test-cluster; done

bench: kubernetes images bench-signing bench-fanout bench-admission ## Memory, the way of an edit, certificates, streams, reviews, rules; each beside the API server's own time
	@cargo run $(CARGO_FLAGS) --quiet -p outrigger-crds --example apply-bench
	@$(CARGO_TARGET_DIR)/debug/bench

# An optimised load program, or it would be what is measured.
bench-signing: kubernetes ## Certificates a second, and storms of sidecars that ask for theirs
	@cargo build $(CARGO_FLAGS) --quiet --release -p outrigger-e2e --bin bench
	@$(CARGO_TARGET_DIR)/release/bench signing

bench-fanout: kubernetes ## An edit on its way to 100, 1000, 2000 and 5000 sidecars, and what they cost the operator
	@cargo build $(CARGO_FLAGS) --quiet --release -p outrigger-e2e --bin bench
	@$(CARGO_TARGET_DIR)/release/bench fanout

bench-admission: kubernetes ## Admission reviews a second, and what they cost the injector
	@cargo build $(CARGO_FLAGS) --quiet --release -p outrigger-e2e --bin bench
	@$(CARGO_TARGET_DIR)/release/bench admission

# With the pinned compiler: its coverage flags are all that fuzzing needs of a nightly one. New inputs stay in the cache, and are
# where the next run goes on from.
fuzz: prepared-cache ## What parses bytes of strangers, FUZZ_SECONDS (default 60) for each target; TARGET=name for one
	@test -x $(CACHE)/tools/bin/cargo-fuzz || cargo install --quiet --locked --root $(CACHE)/tools cargo-fuzz
	@for target in $(or $(TARGET),$(FUZZ_TARGETS)); do \
		echo "==> fuzzing $$target"; mkdir -p "$(CACHE)/fuzz/$$target"; \
		RUSTC_BOOTSTRAP=1 $(CACHE)/tools/bin/cargo-fuzz run --fuzz-dir fuzz --sanitizer none --target-dir "$(CARGO_TARGET_DIR)/fuzz" \
			"$$target" "$(CACHE)/fuzz/$$target" "fuzz/seeds/$$target" -- -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=65536 -timeout=10 -print_final_stats=1; done

lint: check ## Formatting, clippy, one TLS provider, licences
	@test -x $(CACHE)/tools/bin/cargo-deny || cargo install --quiet --locked --root $(CACHE)/tools cargo-deny
	$(call timed,licences,$(CACHE)/tools/bin/cargo-deny check licenses bans sources)

check: prepared-cache
	$(call timed,formatting,cargo fmt --all --check)
	$(call timed,clippy,cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings)
	@test -z "$$(cargo tree --workspace -i ring -e normal$(comma)build 2>/dev/null)" || { echo "ring is in the build: aws-lc-rs is the one crypto provider" >&2; exit 1; }

generate: prepared-cache ## CRDs in the charts, and tables of the documentation
	cargo run $(CARGO_FLAGS) --quiet -p outrigger-crds --bin crdgen
	cargo run $(CARGO_FLAGS) --quiet -p outrigger-injector --example reference > docs/reference/annotations.md
	cargo run $(CARGO_FLAGS) --quiet -p outrigger-operator --example reference > docs/reference/missing-sidecars.md

# Tools of the verbs themselves.
tools: prepared-cache
	@cargo build $(CARGO_FLAGS) --quiet -p outrigger-e2e --bins

# First of all, so that nothing is emptied that this run has just built. Cargo tells our own crates of two clones apart by the
# times of their files only: when another clone built last, they are built anew, and dependencies stay.
prepared-cache:
	@if [ -d "$(CARGO_TARGET_DIR)" ] && [ "$$(du -sm "$(CARGO_TARGET_DIR)" | cut -f1)" -gt $(CACHE_LIMIT) ]; then \
		echo "==> $(CARGO_TARGET_DIR) holds more than $(CACHE_LIMIT) MB: emptied"; rm -rf "$(CARGO_TARGET_DIR)"; fi
	@mkdir -p "$(CARGO_TARGET_DIR)"
	@if [ "$$(cat "$(CARGO_TARGET_DIR)/checkout" 2>/dev/null || true)" != "$(CURDIR)" ]; then \
		find "$(CARGO_TARGET_DIR)" -maxdepth 4 -path '*/.fingerprint/outrigger-*' -prune -exec rm -rf {} +; \
		echo "$(CURDIR)" > "$(CARGO_TARGET_DIR)/checkout"; fi

kubernetes: tools ## The Kubernetes programs, from Go modules; once for each content of e2e/kubernetes
	@$(CLUSTER) kubernetes build >/dev/null

cluster: kubernetes ## Start the local Kubernetes alone, and print how to use it
	@$(CLUSTER) up

cluster-down: tools ## Stop the local Kubernetes and remove everything of it
	@$(CLUSTER) down

recording: kubernetes ## Records how the programs run, for the compiler and the linker: after new dependencies or a new compiler
	@cargo build $(CARGO_FLAGS) --quiet -p outrigger-e2e --bins
	$(call timed,recording,$(CARGO_TARGET_DIR)/debug/recording)

images: tools ## Image archives, without Docker
	$(call timed,images,$(CLUSTER) images build)
