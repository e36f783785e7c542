# `make demo` runs the method on real images, `make lab` opens the first notebook, `make test` runs all checks.
# Needs Python 3.11 or newer and make. The rest is installed into .venv once, pinned by binder/constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
PINS := pyproject.toml binder/constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --constraint binder/constraints.txt --editable
BENCHMARKS ?= $(basename $(notdir $(wildcard tests/benchmarks/bench_*.py)))
ARGS ?=

.DEFAULT_GOAL := demo
.PHONY: demo lab test lint bench clean

demo: .venv/installed
	$(BIN)/svetlana-jupyter demo $(ARGS)

lab: .venv/installed
	$(BIN)/svetlana-jupyter lab . $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

# Browser tests share one JupyterLab, so they run in a process of their own beside the others.
test: lint
	$(BIN)/python -m tests.browser.chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations 20 tests/browser > .browser.log 2>&1 & browser=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 20 --ignore tests/browser $(ARGS); rest=$$?; \
	wait $$browser; status=$$?; cat .browser.log; rm .browser.log; exit $$((rest + status))

lint: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/vulture

# One benchmark on your own images: make bench BENCHMARKS=bench_objects ARGS="--data FOLDER"
bench: .venv/installed-test
	set -e; for benchmark in $(BENCHMARKS); do $(BIN)/python -m tests.benchmarks.$$benchmark $(ARGS); done

clean:
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache svetlana_demo tests/browser/screenshots
	find svetlana_jupyter tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, got %d.%d. Name \
	another one, for example: make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot create a virtual environment. On Debian \
	and Ubuntu, run: apt-get install python3-venv" >&2; exit 1; }

.venv/installed: $(PINS) | $(BIN)/python
	@echo "Installing the pinned environment into .venv (once, a few minutes)"
	$(INSTALL) .
	@touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) ".[test]"
	@touch $@
