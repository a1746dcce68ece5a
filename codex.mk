# What a user, a developer and CI type. Everything a machine needs beyond Python, git and make is installed into .venv
# by the targets themselves; nothing is reinstalled while pyproject.toml and constraints.txt stay as they are.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CACHE  := .cache

# The gate's programs are called by name; they come from the environment, and their caches stay below .cache.
GATE := PATH="$(CURDIR)/$(BIN):$$PATH" PRE_COMMIT_HOME="$(CURDIR)/$(CACHE)/pre-commit"

# As many processes as the machine has processors, four at most: each holds torch and a model.
PYTEST := $(BIN)/python -m pytest -q -n logical --maxprocesses=4 --dist=worksteal

# Parts of `make test-full`; none means all.
PARTS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-full unit integration e2e invariant faults regression coverage-test coverage-report
.PHONY: bench lint types contracts quality gates hooks gates-setup sbom coverage-badge mutation docs lock pretrain-base
.PHONY: reference wheelhouse wheelhouse-cuda base-image image-cpu image-cuda compose-check image-test clean clean-venv

help:  ## Show the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' codex.mk | expand -t 18
	@echo 'Not there yet: verify (docs/decisions/0007-the-gate.md).'

# torch is installed first: on a machine without a GPU this keeps pip from drawing in a CUDA build with a later package.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "codex-ml needs Python 3.11 or newer; set PYTHON=…" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet torch
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# The pins of these environments have hashes, and pip installs only files with these hashes.
$(CACHE)/environments/semgrep/installed.txt: tools/semgrep/constraints.txt | $(VENV)/.installed-dev
	$(BIN)/python tools/tool_environments.py --setup semgrep

$(CACHE)/environments/pip-audit/installed.txt: tools/environments/pip-audit.txt | $(VENV)/.installed-dev
	$(BIN)/python tools/tool_environments.py --setup pip-audit

$(CACHE)/environments/cosmic-ray/installed.txt: tools/environments/cosmic-ray.txt | $(VENV)/.installed-dev
	$(BIN)/python tools/tool_environments.py --setup cosmic-ray

demo: $(VENV)/.installed  ## Train the example adapter and compare it with its base
	$(BIN)/codex-ml train --config-name=examples/minimal
	$(BIN)/codex-ml evaluate --config-name=examples/minimal --checkpoint base --checkpoint best

test: $(VENV)/.installed-dev  ## Run the tests of every change, with branch coverage
	@$(BIN)/python tools/tested_tree.py begin
	$(PYTEST) --durations=10 --cov --cov-report= --cov-fail-under=0 tests/e2e tests/invariant tests/faults tests/regression
	$(PYTEST) --durations=10 --cov --cov-append tests/integration tests/unit
	@$(BIN)/python tools/tested_tree.py finish

test-full: $(VENV)/.installed-dev gates-setup  ## Run the exhaustive tests in parts; PARTS="wheel kills" names some
	$(BIN)/python tools/run_full_tests.py $(PARTS)

unit: $(VENV)/.installed-dev  ## Run the unit tests
	$(PYTEST) tests/unit

integration: $(VENV)/.installed-dev  ## Run the integration tests
	$(PYTEST) tests/integration

invariant: $(VENV)/.installed-dev  ## Run the equivalence tests
	$(PYTEST) tests/invariant

faults: $(VENV)/.installed-dev  ## Run the fault tests
	$(PYTEST) tests/faults

e2e: $(VENV)/.installed-dev  ## Run the command line as a user does
	$(PYTEST) tests/e2e

regression: $(VENV)/.installed-dev  ## Run the tests of faults that were once there
	$(PYTEST) tests/regression

coverage-test: $(VENV)/.installed-dev  ## Run every test and write the coverage as pages
	$(PYTEST) --cov --cov-report=html --cov-report=term

coverage-report: $(VENV)/.installed-dev  ## Show the coverage of the last make test, gaps by line
	$(BIN)/coverage report

coverage-badge: $(VENV)/.installed-dev  ## Draw the coverage of the last make test into docs/coverage.svg
	$(BIN)/python tools/coverage_badge.py

mutation: $(CACHE)/environments/cosmic-ray/installed.txt  ## Mutation testing of the costly modules; takes hours
	$(BIN)/python tools/run_mutation.py

lint: $(VENV)/.installed-dev  ## Check style, formatting and this file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/lint_makefile.py

types: $(VENV)/.installed-dev  ## Check types
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(VENV)/.installed-dev  ## Check that imports only go down
	$(BIN)/lint-imports --cache-dir $(CACHE)/import_linter

quality: $(VENV)/.installed-dev gates-setup  ## Run the gate: every hook of .pre-commit-config.yaml
	$(GATE) pre-commit run --all-files

gates: $(VENV)/.installed-dev gates-setup  ## Run every scan without a network (scripts/codex_local_gates.sh)
	PYTHON=$(BIN)/python scripts/codex_local_gates.sh

hooks: $(VENV)/.installed-dev gates-setup  ## Let git run the gate before each commit
	$(GATE) pre-commit install

gates-setup: $(CACHE)/environments/semgrep/installed.txt $(CACHE)/environments/pip-audit/installed.txt  ## Install the scanners that need their own environments

bench: $(VENV)/.installed-dev  ## Measure training beside transformers.Trainer; takes some minutes
	$(BIN)/python benchmarks/training_speed.py

docs: $(VENV)/.installed-dev  ## Build the documentation into .cache/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

sbom: $(VENV)/.installed-dev  ## Write the bill of materials again (docs/sbom.cdx.json)
	$(BIN)/python tools/make_sbom.py

reference: $(VENV)/.installed-dev  ## Write docs/reference and the lists of modules in READMEs from the code
	$(BIN)/python tools/make_reference.py

# The programs of the images need nothing but Python: a machine that only builds has no environment of ours.
IMAGES := PYTHONPATH=tools $(PYTHON) -m images

wheelhouse:  ## Make the wheels of the CPU image; needs a package index
	$(IMAGES).wheelhouse

wheelhouse-cuda:  ## Make the wheels of the CUDA image; needs an index with torch for CUDA
	$(IMAGES).wheelhouse --cuda --directory wheelhouse-cuda

base-image:  ## Make the base image without a registry; needs root, mmdebstrap, a Debian mirror
	$(IMAGES).base_image

image-cpu:  ## Build codex:cpu without a network
	$(IMAGES).build cpu

image-cuda:  ## Build codex:cuda without a network
	$(IMAGES).build cuda

compose-check:  ## Check docker-compose.yml
	if docker compose version >/dev/null 2>&1; then docker compose config --quiet; else docker-compose config --quiet; fi

image-test:  ## Build and use both images in a private daemon without a network; needs root
	$(IMAGES).image_test

lock: $(VENV)/.installed-dev  ## Write constraints.txt and the hashed lock files again from a clean environment
	$(BIN)/python tools/lock.py

pretrain-base: $(VENV)/.installed  ## Make the example's tokenizer and base model again
	$(BIN)/python examples/minimal/make_base.py

clean:  ## Remove caches and build outputs; the environments and the database of the audit stay
	rm -rf build dist *.egg-info
	mkdir -p $(CACHE) && find $(CACHE) -mindepth 1 -maxdepth 1 ! -name environments ! -name osv -exec rm -rf {} +

clean-venv: clean  ## Remove the environments too
	rm -rf $(VENV) $(CACHE)/environments
