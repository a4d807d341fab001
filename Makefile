# Works with python3 (3.11 or later), git and make. Everything goes into $(VENV); nothing outside the folder changes.
#   make demo VENV=/somewhere/else          another virtual environment
#   make demo PYTHON=python3.13             another interpreter
#   make test WORKERS=8                     more tests at once (1 GB of memory each)
#   make demo PIP_ARGS="--index-url ..."    another package index, such as one with CPU-only PyTorch

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
DEMO_OUT ?= demo-out
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
BASE := $(VENV)/.stamp-base
DEV := $(VENV)/.stamp-dev
BENCH := $(VENV)/.stamp-bench
DOCS := $(VENV)/.stamp-docs
TORCH := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all fuzz lint format docs bench bench-large clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

DEMO = $(BIN)/edgeprune compress examples/digits/digits_net.safetensors \
	--arch examples/digits/model.py:digits_net --calibration calibration/digits.npz \
	--ratio 0.5 --threads 1 --overwrite

demo: $(BASE) ## halve the MACs of the bundled digits model for a Raspberry Pi 4 and for this host
	@echo "== compressing the digits model for rpi4 and for this host, at the same time, with a thread each"
	@mkdir -p "$(DEMO_OUT)"
	@$(MAKE) --no-print-directory -j2 demo-rpi4 demo-host; status=$$?; \
	  echo "== this host:"; cat "$(DEMO_OUT)/host.txt"; exit $$status
	@echo "== the compressed models and their reports: $(DEMO_OUT)/rpi4 and $(DEMO_OUT)/host"

.PHONY: demo-rpi4 demo-host
demo-rpi4:
	$(DEMO) --target rpi4 --output "$(DEMO_OUT)/rpi4"
demo-host:
	@$(DEMO) --target host --output "$(DEMO_OUT)/host" > "$(DEMO_OUT)/host.txt" 2>&1

# Compiled files are kept, whatever the environment says: the processes of the tests read the package 300 times.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: $(DEV) ## run the tests, in under ten minutes: all but those marked wide
	@echo "== testing"
	$(PYTEST) -m "not wide"

test-all: $(DEV) ## run the whole test suite, with the wide tests: more networks, options and examples of the same
	@echo "== testing everything"
	$(PYTEST)

fuzz: $(DEV) ## an hour of changed files of every format for every command (FUZZ="--minutes 5" for less)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py --minutes 60 $(FUZZ)

lint: $(DEV) ## check formatting, style, types and the layers of the code
	@echo "== linting"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## format the code and correct what can be corrected
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Without --quiet, with which --strict would count no warning.
docs: $(DOCS) ## build the pages of docs/ into site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "== the pages: site/index.html"

bench: $(BENCH) ## run all benchmarks (half a day on two idle cores; each script alone can be stopped and goes on)
	@for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-large: $(BENCH) ## the coupling benchmark with models above 600 MB, too (16 GB of memory, an hour more)
	$(BIN)/python tests/benchmarks/bench_coupling.py --large --timeout 1200

clean: ## remove the virtual environment, caches, the demo's output and the pages
	rm -rf "$(VENV)" "$(DEMO_OUT)" site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BASE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is missing or older than 3.11; install Python 3.11 or later, or name one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@echo "== making the virtual environment $(VENV)"
	$(PYTHON) -m venv "$(VENV)"
	@echo "== installing PyTorch, the large one, then the rest"
	$(PIP) install $(PIP_ARGS) --constraint constraints.txt "$(TORCH)"
	$(PIP) install $(PIP_ARGS) --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEV): $(BASE)
	@echo "== installing the development tools"
	$(PIP) install $(PIP_ARGS) --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

$(BENCH): $(DEV)
	@echo "== installing the networks that only the benchmarks use"
	$(PIP) install $(PIP_ARGS) --quiet --constraint constraints.txt --editable ".[bench]"
	@touch $@

$(DOCS): $(BASE)
	@echo "== installing what makes pages of the documentation"
	$(PIP) install $(PIP_ARGS) --quiet --constraint constraints.txt --editable ".[docs]"
	@touch $@
