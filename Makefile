# Everything here needs make and Python 3.11 or newer, nothing else. Each target makes its environment on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO ?= demo
# Quiet start-up of TensorFlow; errors still show.
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Most tests use one thread: a process for each core, up to four for the memory's sake, whose PyTorch threads would wait
# for each other in turn.
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
test test-parity test-lowest test-contract: export OMP_NUM_THREADS ?= 1

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
	$(BIN)/python $(PYTEST)

test-parity: $(VENV)/.dev ## Compare with the reference implementations
	@$(PIP) install --quiet --editable '.[parity-crf]' 2>/dev/null \
		|| echo "note: pydensecrf2 cannot be built here (it needs a C++ compiler): its comparisons are skipped"
	$(BIN)/python $(PYTEST) -o addopts="--import-mode=importlib -ra --strict-markers" tests/parity --ignore=tests/parity/pieces
	$(BIN)/python -m tests.parity.pieces.table

test-lowest: pyproject.toml ## Run the tests that lean on other libraries with the lowest versions that we claim to support
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip --disable-pip-version-check install --quiet uv
	VIRTUAL_ENV=$(VENV)-lowest $(VENV)-lowest/bin/uv pip install --quiet --resolution lowest-direct --editable '.[test]'
	$(VENV)-lowest/bin/python $(PYTEST) -W ignore::DeprecationWarning $(DEPENDENCY_TESTS)

test-contract: $(VENV)/.dev ## Run the contract of every model under PyTorch and JAX (make test does so under TensorFlow)
	KERAS_BACKEND=torch $(BIN)/python $(PYTEST) tests/contract/test_contract.py tests/contract/test_config.py
	KERAS_BACKEND=jax $(BIN)/python $(PYTEST) tests/contract/test_contract.py tests/contract/test_config.py

lint: $(VENV)/.dev ## Run ruff, pyright, import-linter and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/codespell

bench: $(VENV)/.dev ## Benchmark the embedded models, and RetinaNet beside torchvision's
	$(BIN)/kerasvision benchmark --models retinanet_resnet10_fpn.streets,unet_resnet10.streets --data streets --out $(DEMO)/bench
	$(BIN)/python -m benchmarks.peers.torchvision_retinanet --size 800

clean: ## Remove environments and what the demo made
	rm -rf .venv .venv-lowest demo
