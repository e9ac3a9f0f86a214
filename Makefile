# Every target works as the first command on a fresh clone: it makes the virtual environment it needs.
#
#   make demo PYTHON=python3.12        another interpreter
#   make test ARGS="tests/store -x"    other arguments for pytest
#   make demo ARGS="--url /tmp/run"    other arguments for the example

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
TORCH ?= torch==2.13.0
# TensorFlow wants other versions of many packages than the rest. Its tests have a conftest.py of their own only: that of the
# others needs what "dev" brings.
ORACLE ?= .venv-tensorflow
ARGS ?=

# The first interpreter that is new enough.
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.13 python3.12 python3.11; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done)
endif

##@ Try it

.PHONY: demo
demo: $(VENV)/.demo ## Train, get killed in the middle of a save, resume, compare (under a minute)
	$(BIN)/python examples/train_digits.py $(ARGS)

##@ Work on it

.PHONY: test
test: $(VENV)/.dev ## Run the tests; they start the servers they need
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-q -n auto)

.PHONY: check
check: $(VENV)/.dev ## Lint, format check, types (mypy and pyright), layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy examples/train_digits.py
	MYPYPATH=tests $(BIN)/mypy benchmarks
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(VENV)/.dev ## Fix what the linter can fix, and format
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: proto
proto: $(VENV)/.dev ## Generate the code of the messages in asyncsaver/proto
	$(BIN)/protoc --proto_path=. --python_out=. --pyi_out=. asyncsaver/proto/*.proto

.PHONY: coverage
coverage: $(VENV)/.dev ## Run the tests with coverage; the report is htmlcov/index.html
	$(BIN)/python -m pytest -q -n auto --cov --cov-report=term:skip-covered --cov-report=html $(ARGS)

.PHONY: torture
torture: $(VENV)/.dev ## Everything that must not lose a checkpoint, at length; prints the figures (about an hour)
	$(BIN)/python tests/torture.py $(ARGS)

.PHONY: bench
bench: $(VENV)/.bench ## Measure against what one would use instead; prints tables (ARGS=--write: into docs/performance.md)
	$(BIN)/python benchmarks/bench.py $(ARGS)

.PHONY: bench-peers
bench-peers: $(VENV)/.bench ## Install what is heavy to compare with: PyTorch, s3torchconnector, tensorstore, Orbax and JAX
	$(PIP) install '$(TORCH)'
	$(PIP) install --editable '.[bench-boto3,bench-orbax,bench-tensorstore,bench-torch]' '$(TORCH)'

.PHONY: bench-tensorflow
bench-tensorflow: $(ORACLE)/.bench ## Measure TensorFlow's files, written and read by TensorFlow and by us, in its environment
	$(ORACLE)/bin/python benchmarks/bench.py --only tensorflow $(ARGS)

.PHONY: bench-scale
bench-scale: $(VENV)/.dev ## Measure how the cost grows with the number of tensors, ranks and checkpoints (ARGS=--write)
	$(BIN)/python benchmarks/scale.py $(ARGS)

# PyPI's torch for Linux brings CUDA. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gives the small one.
.PHONY: test-torch
test-torch: $(VENV)/.dev ## Install PyTorch, then run the tests that need it
	$(PIP) install '$(TORCH)'
	$(BIN)/python -m pytest -q tests/frameworks $(ARGS)

.PHONY: tensorflow-oracle
tensorflow-oracle: $(ORACLE)/.oracle ## Real TensorFlow reads what we write, and we what it writes (installs it, apart from the rest)
	$(ORACLE)/bin/python -m pytest -q --confcutdir=tests/oracle tests/oracle $(ARGS)

##@ Tidy up

.PHONY: clean
clean: ## Remove caches, reports and build output
	rm -rf build dist htmlcov .coverage .coverage.* .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find asyncsaver backends benchmarks examples tests -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Also remove the virtual environments and the test servers
	rm -rf $(VENV) $(ORACLE) .servers

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo

# --- the virtual environment ---------------------------------------------------------------------------

$(BIN)/pip $(ORACLE)/bin/pip:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is not Python 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(@:/bin/pip=)

$(VENV)/.demo: pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[demo]'
	@touch $@

# boto3 comes with "dev".
$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --editable '.[bench]'
	@touch $@

$(ORACLE)/.oracle: pyproject.toml | $(ORACLE)/bin/pip
	$(ORACLE)/bin/python -m pip -qq --disable-pip-version-check install --editable '.[oracle]'
	@touch $@

$(ORACLE)/.bench: $(ORACLE)/.oracle
	$(ORACLE)/bin/python -m pip -qq --disable-pip-version-check install --editable '.[bench]'
	@touch $@

# "dev" includes "demo".
$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.demo $@
