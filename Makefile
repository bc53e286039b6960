# The build, the tests and the demo of crate-discovery. `make` alone lists what there is.
#
# demo and test are complete: on a fresh Debian with cargo, make, git and root they install what is missing
# (.ci/install) and then do what they say.

# Where rustup puts cargo, for shells that have not been opened anew since.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TARGET_DIR ?= target

# etcd 3.4, which Debian 12 ships, starts on 64-bit ARM only when told that one means it.
ifeq ($(shell uname -m),aarch64)
export ETCD_UNSUPPORTED_ARCH := arm64
endif

BINARY := $(CARGO_TARGET_DIR)/release/crate-discovery
SCRIPTS := $(wildcard .ci/*) $(wildcard tests/*.sh)

# Of `make soak`; a seed repeats a run's faults.
MINUTES ?= 5
SEED ?=
# Of `make fuzz`.
SECONDS ?= 600

.PHONY: help build demo test test-matrix lint deny bench soak fuzz clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

build: ## the release binary, target/release/crate-discovery
	@.ci/install cargo cc protoc
	cargo build --release --locked

demo: ## three hosts announced, listed, withdrawn and expired on a real etcd
	@.ci/install cargo cc protoc etcd
	cargo build --release --locked
	@tests/demo.sh $(BINARY)

test: ## every test, on a real etcd
	@.ci/install cargo cc protoc etcd faketime
	cargo test --locked

test-matrix: ## every test, on every etcd that can be had
	@.ci/install cargo cc protoc etcd faketime
	@.ci/test-matrix

lint: ## formatting, clippy, the docs and the shell scripts
	@.ci/install cargo cc protoc shellcheck
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked
	shellcheck $(SCRIPTS)

deny: ## licences, bans and sources of the dependencies
	@.ci/install cargo
	@.ci/deny

bench: ## what the sidekick costs: disk, memory, threads, writes to etcd
	@.ci/install cargo cc protoc etcd
	cargo bench --locked --bench footprint

soak: ## thirty announcers under random faults: MINUTES=5 SEED=
	@.ci/install cargo cc protoc etcd
	cargo bench --locked --bench soak -- $(MINUTES) $(SEED)

fuzz: ## the decoders of keys and values: SECONDS=600
	@.ci/install cargo cc protoc
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	RUSTC_BOOTSTRAP=1 cargo fuzz run announcement -- -max_total_time=$(SECONDS) -max_len=4096

clean: ## remove what was built
	cargo clean
