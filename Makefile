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

BINARY ?= $(CARGO_TARGET_DIR)/release/crate-discovery
SCRIPTS := $(wildcard .ci/*) $(wildcard tests/*.sh tests/*/*.sh) tests/cratedb/with-image
# What the tests need; see .ci/install.
TESTED_WITH := cargo cc protoc etcd faketime docker compose debootstrap dig ip ext4

# Every file or directory of tests that cargo takes for one; and those that need a docker engine.
SUITES := $(basename $(notdir $(wildcard tests/*.rs))) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs))
CONTAINERS := systemd docker cratedb
LONG_EXPLORATIONS := every_interleaving whatever_happens

# Where `make install` puts things. systemd looks into /usr and /usr/local; for any other PREFIX, such as Flatcar's
# /opt, what is systemd's goes to /etc.
PREFIX ?= /usr/local
DESTDIR ?=
ifneq ($(filter $(PREFIX),/usr /usr/local),)
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
SYSCTLDIR ?= $(PREFIX)/lib/sysctl.d
else
UNITDIR ?= /etc/systemd/system
SYSUSERSDIR ?= /etc/sysusers.d
SYSCTLDIR ?= /etc/sysctl.d
endif
DOCDIR ?= $(PREFIX)/share/doc/crate-discovery
UNITS := crate@.service crate-discovery@.service crate-seeds@.service crate-image@.service

# Of `make image`. BUILDER is the builder's base image, where Docker Hub's rust cannot be had.
IMAGE ?= crate-discovery
BUILDER ?=
IMAGE_FLAGS ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# The engine's own client: the one in PATH may be another version's.
DOCKER := $(firstword $(wildcard /usr/bin/docker) docker)

# Of `make test-cratedb`: the image of a real CrateDB.
CRATE_IMAGE ?= crate:6.4.3

# Of `make soak`; a seed repeats a run's faults.
MINUTES ?= 5
SEED ?=
# Of `make fuzz`, for each target.
SECONDS ?= 600

.PHONY: help build image install uninstall demo test test-quick test-cratedb test-matrix lint deny bench soak fuzz clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

build: ## the release binary, target/release/crate-discovery
	@.ci/install cargo cc protoc
	cargo build --release --locked

image: ## the docker image, crate-discovery: IMAGE= BUILDER=
	@.ci/install docker
	@DOCKER_BUILDKIT=1 .ci/with-docker sh -c '$(DOCKER) build --file docker/Dockerfile --tag $(IMAGE) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		$(if $(BUILDER),--build-arg BUILDER=$(BUILDER)) $(IMAGE_FLAGS) . \
		&& $(DOCKER) image inspect --format "$(IMAGE): {{.Size}} bytes, {{.Id}}" $(IMAGE)'

# Builds nothing, so that `sudo make install` leaves no files of root's in the tree.
install: ## what was built, and the units: DESTDIR= PREFIX=/usr/local
	@[ -x $(BINARY) ] || { echo "error: $(BINARY) is not there: run make build first" >&2; exit 1; }
	install -d -m 755 $(DESTDIR)$(PREFIX)/bin
	@# By rename: a sidekick that is started meanwhile has the old one or the new one, and a running one keeps its own.
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/.crate-discovery.new
	mv -f $(DESTDIR)$(PREFIX)/bin/.crate-discovery.new $(DESTDIR)$(PREFIX)/bin/crate-discovery
	install -d -m 755 $(DESTDIR)$(UNITDIR)
	@for unit in $(UNITS); do \
		echo "systemd/$$unit -> $(DESTDIR)$(UNITDIR)/$$unit"; \
		sed 's|/usr/local/bin/crate-discovery|$(PREFIX)/bin/crate-discovery|' systemd/$$unit \
			>$(DESTDIR)$(UNITDIR)/$$unit && chmod 644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	install -D -m 644 systemd/sysusers.d/crate-discovery.conf $(DESTDIR)$(SYSUSERSDIR)/crate-discovery.conf
	install -D -m 644 systemd/sysctl.d/60-crate.conf $(DESTDIR)$(SYSCTLDIR)/60-crate.conf
	install -D -m 644 systemd/crate-discovery.env.example $(DESTDIR)$(DOCDIR)/crate-discovery.env.example

uninstall: ## what make install put there; /etc/crate-discovery and /var/lib/crate-discovery stay
	rm -f $(DESTDIR)$(PREFIX)/bin/crate-discovery $(DESTDIR)$(PREFIX)/bin/.crate-discovery.new
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS))
	rm -f $(DESTDIR)$(SYSUSERSDIR)/crate-discovery.conf $(DESTDIR)$(SYSCTLDIR)/60-crate.conf
	rm -f $(DESTDIR)$(DOCDIR)/crate-discovery.env.example
	@rmdir $(DESTDIR)$(DOCDIR) 2>/dev/null || true

demo: ## three hosts announced, listed, withdrawn and expired on a real etcd
	@.ci/install cargo cc protoc etcd
	cargo build --release --locked
	@tests/demo.sh $(BINARY)

# In two lanes, since most tests wait: those that boot machines or start containers, and all others. Whatever is not in
# CONTAINERS is in the second one, so that no test is forgotten.
test: ## every test, on a real etcd, a real systemd and a real docker engine
	@.ci/install $(TESTED_WITH)
	@.ci/with-docker .ci/side-by-side "$(addprefix --test ,$(CONTAINERS))" \
		"--lib --bins $(addprefix --test ,$(filter-out $(CONTAINERS),$(SUITES)))"
	@cargo test --locked --doc

# Left out of the model are the explorations that take most of its time.
test-quick: ## what a change is tried with first, in less than a minute: no containers, no faults
	@.ci/install cargo cc protoc etcd faketime
	@.ci/side-by-side "--lib --bins $(addprefix --test ,cli bad_input docs references house hosts announce)" \
		"--test model -- $(addprefix --skip ,$(LONG_EXPLORATIONS))"

# One after the other: a node has 512 MB of heap, and wants a core of its own. Left out is what steers the stand-in.
test-cratedb: ## how clusters form with a real CrateDB, which has to be had here: CRATE_IMAGE=crate:6.4.3
	@.ci/install $(TESTED_WITH)
	@.ci/with-docker tests/cratedb/with-image $(CRATE_IMAGE) sh -e -c ' \
		cargo test --locked --no-fail-fast --test cratedb -- --test-threads=1 --skip stand_in::; \
		cargo test --locked --no-fail-fast --test systemd --test docker -- --test-threads=1 formation:: readme::'

test-matrix: ## every test, on every etcd that can be had
	@.ci/install $(TESTED_WITH)
	@.ci/with-docker .ci/test-matrix

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

bench: ## what the sidekick costs: disk, memory, threads, writes to etcd; how soon its feeds tell
	@.ci/install cargo cc protoc etcd
	cargo bench --locked --bench footprint --bench feeds --bench srv

soak: ## thirty announcers under random faults: MINUTES=5 SEED=
	@.ci/install cargo cc protoc etcd
	cargo bench --locked --bench soak -- $(MINUTES) $(SEED)

fuzz: ## the decoders of keys and values, and the SRV answers: SECONDS=600 each
	@.ci/install cargo cc protoc
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	@for target in $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs))); do \
		echo "fuzzing $$target for $(SECONDS) s"; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_total_time=$(SECONDS) -max_len=4096 || exit 1; \
	done

clean: ## remove what was built
	cargo clean
