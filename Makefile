# make help lists the targets. The only things a machine must have are Rust (rustup), gcc, git and Debian's base: what the tests and the
# demo need beyond that is installed by tests/servers/install.sh.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Kills in the long torture run.
N ?= 1000
# Size of the one transaction in the test of memory.
GB ?= 5
# 1: the demo leaves servers and agent running.
KEEP ?=
# Words of which a benchmark's case has one in its name; empty for all.
CASE ?=

.PHONY: help build test servers fmt clippy unit integration demo torture whale bench clean-cache

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

build: ## the release binaries, in target/release
	$(CARGO) build --release --locked

servers: ## the database servers for tests and demo (apt, and MySQL 9.7 in ~/.cache/dm-agent)
	tests/servers/install.sh

test: servers fmt clippy unit integration ## everything: format, lints, unit, property and integration tests

fmt: ## is every file formatted?
	$(CARGO) fmt --check

clippy: ## lints, warnings are errors
	$(CARGO) clippy --locked --all-targets -- -D warnings

# tests/*.rs are tests that need no server.
unit: ## unit and property tests, no server needed
	$(CARGO) test --locked --lib --bins $(addprefix --test ,$(basename $(notdir $(wildcard tests/*.rs))))

# Each test runs servers of its own beside the shared ones, so more tests at once than this only wait for each other.
integration: servers ## end to end on real servers; one of them: make integration T=fifty_pauses
	$(CARGO) test --locked --test integration -- --test-threads="$${TEST_THREADS:-$$(nproc)}" $(T)

torture: servers ## kill -9 at N random instants, then every table equal: make torture N=1000 [SEED=…]
	TORTURE_N=$(N) $(CARGO) test --locked --test integration -- --ignored --exact torture::as_long_as_you_like --nocapture

whale: servers ## one transaction of GB gigabytes, paused and killed inside, in bounded memory: make whale GB=5
	WHALE_GB=$(GB) $(CARGO) test --locked --test integration -- --ignored --exact memory::as_large_as_you_like --nocapture

bench: servers ## each case against its reference in the same run; make bench CASE=pull,decode. Exit code 1 where a target is missed
	CASE='$(CASE)' $(CARGO) bench --locked --bench bench

demo: servers build ## the narrated tour on real servers; make demo KEEP=1 leaves it running
	KEEP=$(KEEP) tests/demo.sh

clean-cache: ## remove the unpacked MySQL and the data directories (installed packages stay)
	tests/servers/install.sh --clean
