# One verb each; CI calls `make test` and nothing else. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# Processes the Python tests run in; each wants a core and up to 3 GB.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# Where the real databases of the tests are; tests that need them say loudly when it is absent.
TRIBUTARY_SHARED_DATA ?= $(abspath $(CURDIR)/../shared/data)
export TRIBUTARY_SHARED_DATA

.PHONY: help setup build check test lint test-rust test-python bench docs demo clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make the Python environment in .venv

$(VENV)/.ready: constraints.txt pyproject.toml scripts/setup.py scripts/weights.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON); install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) scripts/setup.py $(VENV)
	touch $@

build: $(VENV)/.built ## build the Rust core and install the package into .venv

$(VENV)/.built: $(VENV)/.ready Cargo.toml Cargo.lock pyproject.toml $(shell find rust/src -name '*.rs')
	@command -v cargo >/dev/null || { echo "error: no cargo; install Rust 1.89 or newer from https://rustup.rs" >&2; exit 2; }
	$(BIN)/maturin develop --release --locked
	touch $@

demo: build ## real database to honest prediction: fetch, preprocess, train, evaluate, predict, report
	$(BIN)/python scripts/demo.py

check: build ## the everyday subset of the tests (under 3 minutes)
	$(BIN)/ruff check python tests scripts benches
	$(BIN)/ruff format --check python tests scripts benches
	$(PYTEST) -m "not slow"

test: lint test-rust test-python docs ## everything CI runs

lint: build ## formatting, clippy, ruff, mypy, stubs
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --lib --no-default-features --features python -- -D warnings
	$(BIN)/ruff check python tests scripts benches
	$(BIN)/ruff format --check python tests scripts benches
	$(BIN)/mypy python
	MYPYPATH=python $(BIN)/python -m mypy.stubtest tributary._headwater

test-rust: ## the Rust tests, without Python
	cargo test --locked

test-python: build ## the Python tests, slow ones included
	TRIBUTARY_EXAMPLES=100 $(PYTEST) -m "slow or not slow"

bench: build ## every benchmark; results on the screen
	$(BIN)/python benches/run.py

docs: ## the documentation's own checks: Rust docs build without warnings, links between pages hold
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --lib --no-deps --no-default-features
	$(BIN)/python scripts/check_links.py

clean: ## remove the environment, builds and processed data (raw data stays)
	rm -rf $(VENV) target data/processed runs
