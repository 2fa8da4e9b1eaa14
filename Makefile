# Everything here needs make and Python 3.11 or newer, nothing else. Each target makes its environment on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO ?= demo
# Quiet start-up of TensorFlow; errors still show.
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Most tests are single-threaded: a process for each core, up to four for the memory's sake.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
DEPENDENCY_TESTS := tests/data tests/metrics tests/models tests/training tests/test_cli.py tests/test_visualize.py

.PHONY: help demo test test-parity test-lowest test-contract lint bench clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11; run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.core

demo: $(VENV)/.core ## Fine-tune a detector and a segmenter, compare them, draw pictures and a report (under 10 minutes)
	$(BIN)/python examples/demo.py --out $(DEMO)

test: $(VENV)/.dev ## Run the default tests
	$(BIN)/python -m pytest $(PARALLEL)

test-parity: $(VENV)/.dev ## Compare with the reference implementations
	$(BIN)/python -m pytest $(PARALLEL) -o addopts="--import-mode=importlib -ra --strict-markers" tests/parity --ignore=tests/parity/pieces
	$(BIN)/python -m tests.parity.pieces.table

test-lowest: pyproject.toml ## Run the tests that lean on other libraries with the lowest versions that we claim to support
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip --disable-pip-version-check install --quiet uv
	VIRTUAL_ENV=$(VENV)-lowest $(VENV)-lowest/bin/uv pip install --quiet --resolution lowest-direct --editable '.[test]'
	$(VENV)-lowest/bin/python -m pytest $(PARALLEL) -W ignore::DeprecationWarning $(DEPENDENCY_TESTS)

test-contract: $(VENV)/.dev ## Run the contract of every model under PyTorch and JAX (make test does so under TensorFlow)
	KERAS_BACKEND=torch $(BIN)/python -m pytest $(PARALLEL) tests/contract/test_contract.py tests/contract/test_config.py
	KERAS_BACKEND=jax XLA_FLAGS=--xla_backend_optimization_level=0 $(BIN)/python -m pytest $(PARALLEL) tests/contract/test_contract.py tests/contract/test_config.py

lint: $(VENV)/.dev ## Run ruff, pyright, import-linter and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell

bench: $(VENV)/.dev ## Benchmark the embedded models, and RetinaNet beside torchvision's
	$(BIN)/kerasvision benchmark --models retinanet_resnet10_fpn.streets,unet_resnet10.streets --data streets --out $(DEMO)/bench
	$(BIN)/python -m benchmarks.peers.torchvision_retinanet --size 800

clean: ## Remove environments and what the demo made
	rm -rf .venv .venv-lowest demo
