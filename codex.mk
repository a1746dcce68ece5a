# What a user, a developer and CI type. Everything a machine needs beyond Python, git and make is installed into .venv
# by the targets themselves; nothing is reinstalled while pyproject.toml and constraints.txt stay as they are.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUNS   := runs

.DEFAULT_GOAL := help
.PHONY: help demo test unit integration e2e invariant faults lint types contracts pretrain-base clean clean-venv

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' codex.mk | expand -t 14

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

demo: $(VENV)/.installed  ## Train the example adapter and compare it with its base
	$(BIN)/codex-ml train --config-name=examples/minimal
	$(BIN)/codex-ml evaluate --config-name=examples/minimal --checkpoint base --checkpoint best

test: $(VENV)/.installed-dev  ## Run every test
	$(BIN)/python -m pytest -q --durations=10

unit: $(VENV)/.installed-dev  ## Run the unit tests
	$(BIN)/python -m pytest -q tests/unit

integration: $(VENV)/.installed-dev  ## Run the integration tests
	$(BIN)/python -m pytest -q tests/integration

invariant: $(VENV)/.installed-dev  ## Run the equivalence tests
	$(BIN)/python -m pytest -q tests/invariant

faults: $(VENV)/.installed-dev  ## Run the fault tests
	$(BIN)/python -m pytest -q tests/faults

e2e: $(VENV)/.installed-dev  ## Run the command line as a user does
	$(BIN)/python -m pytest -q tests/e2e tests/offline

lint: $(VENV)/.installed-dev  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev  ## Check types
	$(BIN)/mypy

contracts: $(VENV)/.installed-dev  ## Check that imports only go down
	$(BIN)/lint-imports

pretrain-base: $(VENV)/.installed  ## Make the example's tokenizer and base model again
	$(BIN)/python examples/minimal/make_base.py

clean:  ## Remove caches and build outputs
	rm -rf .cache build dist *.egg-info

clean-venv: clean  ## Remove the environment too
	rm -rf $(VENV)
