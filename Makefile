# `make help` lists what can be made. Everything is built in .venv/, .cache/ and build/ of this folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAYERS := $(BIN)/python -m tests.tools.layers

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: venv
venv: $(VENV)/test.stamp ## the Python environment in .venv/ with every tool (PYTHON=python3.12 to choose)

.PHONY: demo
demo: $(VENV)/demo.stamp ## the main job on this machine, without root (KEEP=1 leaves its servers running)
	@$(BIN)/python -m demo

.PHONY: pgops
pgops: ## the program for hosts as one file, build/pgops
	@$(PYTHON) -m tests.tools.program build/pgops

.PHONY: docs
docs: $(VENV)/test.stamp ## write the generated part of docs/ anew
	@$(BIN)/python docs/generate.py

.PHONY: vault-example
vault-example: $(VENV)/demo.stamp ## how secrets are kept: a vault, from beginning to end
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/vault.sh

.PHONY: lint
lint: $(VENV)/test.stamp ## ruff, mypy, yamllint, ansible-lint, change log, generated docs
	@$(LAYERS) lint

.PHONY: format
format: $(VENV)/test.stamp ## let ruff lay out the Python code and mend what it can
	@$(BIN)/ruff check --fix --exit-zero --quiet . && $(BIN)/ruff format .

.PHONY: sanity
sanity: $(VENV)/test.stamp ## ansible-test sanity and units on each supported ansible-core
	@$(LAYERS) sanity

.PHONY: unit
unit: $(VENV)/test.stamp ## the unit tests, and the engine on bare Pythons
	@$(LAYERS) unit

.PHONY: integration
integration: $(VENV)/test.stamp ## the tests with real PostgreSQL and S3 servers
	@$(LAYERS) integration

.PHONY: faults
faults: $(VENV)/test.stamp ## what goes wrong, injected: servers, disks, stores, signals, damage
	@$(LAYERS) faults

.PHONY: stores
stores: $(VENV)/test.stamp ## the tests on a real Ceph, as root on Debian
	@$(LAYERS) stores

.PHONY: molecule
molecule: $(VENV)/molecule.stamp ## the roles on real booted hosts, as root on Debian (ONLY="default timers", KEEP=1 leaves the hosts)
	@$(BIN)/python -m tests.tools.scenarios $(if $(KEEP),--keep) $(ONLY)

.PHONY: test
test: $(VENV)/test.stamp $(VENV)/molecule.stamp ## every layer; the last line counts them
	@$(LAYERS)

.PHONY: bench
bench: $(VENV)/bench.stamp ## the speed of pgops against other tools, as root on Debian (ONLY=sync, SCALE=0.05, ROUNDS=1)
	@$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only "$(ONLY)") $(if $(SCALE),--scale $(SCALE)) $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: build
build: $(VENV)/demo.stamp ## the collection's archive, into build/
	@$(BIN)/python -m tests.tools.archive build

.PHONY: clean
clean: ## remove what was built and what the tools cached, but not .venv/ and .cache/
	rm -rf build .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
	find . -path ./$(VENV) -prune -o -path ./.cache -prune -o -type d -name __pycache__ -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove the environments, too
	rm -rf $(VENV) .cache

# The demo does without the tools of the tests, so that a first look needs less.
$(VENV)/demo.stamp: requirements-demo.txt requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12 ...")'
	@echo "building $(VENV)/ with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-demo.txt
	@# Makes this checkout importable as ansible_collections.pgops.backup, and visible to Ansible.
	@mkdir -p $(VENV)/collections/ansible_collections/pgops
	@ln -sfn ../../../.. $(VENV)/collections/ansible_collections/pgops/backup
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp requirements-test.txt requirements-units.txt
	@echo "adding the tools of the tests to $(VENV)/"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

$(VENV)/molecule.stamp: $(VENV)/demo.stamp requirements-molecule.txt requirements-units.txt
	@echo "adding Molecule to $(VENV)/"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-molecule.txt
	@touch $@

$(VENV)/bench.stamp: $(VENV)/demo.stamp requirements-bench.txt
	@echo "adding the programs that the bench compares with to $(VENV)/"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@
