# Every target makes the environment that it needs, so each works in a fresh clone.
# Required: Python >= 3.10 with venv, a C compiler, and access to a package registry.
# `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Half of the suite waits, for a server, a disk or a timeout: two workers for each CPU keep all busy.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
PARALLEL := --numprocesses=$(WORKERS) --dist=worksteal

TOOLS := $(VENV)/tools.stamp
PACKAGE := $(VENV)/package.stamp

# Each run of make looks for LevelDB. The stamp's name holds the answer, so that the package is built
# again when LevelDB has been installed or removed.
HAS_LEVELDB := $(shell echo '\#include <leveldb/c.h>' | $(CXX) -x c++ -E - >/dev/null 2>&1 && echo yes || echo no)
LEVELDB := $(VENV)/leveldb-$(HAS_LEVELDB).stamp

# Containers often set this variable. Without the compiled files of earlier runs, each of the
# hundreds of processes that the suite starts compiles the package again, and each worker of pytest
# compiles all tests.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: asan bench clean coverage crash demo dev format fuzz help hooks lint lock simulate soak test test-one wheel

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS='	' read -r target text; do \
	  printf '  make %-10s %s\n' "$$target" "$$text"; done
	@echo 'Another interpreter: make test PYTHON=python3.13 VENV=.venv-3.13'

# ------------------------------------------------------------------------------------------------- environment

$(TOOLS): requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "treehub-level needs Python 3.10 or later")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --requirement requirements-dev.txt
	touch $@

$(VENV)/leveldb-yes.stamp: | $(TOOLS)
	@rm -f $(VENV)/leveldb-*.stamp
	@touch $@

$(VENV)/leveldb-no.stamp: | $(TOOLS)
	@echo 'LevelDB is not installed: the package is built without its native engine, and opens LevelDB stores with plyvel.'
	@echo 'To build the native engine:  sudo apt-get install g++ libleveldb-dev libsnappy-dev  and repeat this command.'
	@rm -f $(VENV)/leveldb-*.stamp
	@touch $@

# An editable install: Python is imported from src/. The extensions are built in build/editable, where
# only changed sources are compiled again.
$(PACKAGE): $(TOOLS) $(LEVELDB) pyproject.toml CMakeLists.txt $(wildcard src/_core/*.*)
	$(PIP) install --no-build-isolation --no-deps --editable . --config-settings build-dir=build/editable
	touch $@

dev: $(PACKAGE) ## Install the tools and the package, editable; rebuild Cython where it changed

hooks: $(TOOLS) ## Run the linters before each commit (git hooks, by pre-commit)
	$(BIN)/pre-commit install

# ------------------------------------------------------------------------------------------------ tests and linters

test-one: $(PACKAGE) ## Run some tests: make test-one T=tests/level/test_reading.py
	@test -n "$(T)" || { echo 'Name the tests, with any options of pytest: make test-one T="tests/level -k put"'; exit 2; }
	$(BIN)/python -m pytest $(T)

# Coverage is measured once, with the compiled core, during the tests that are marked `covered`
# (PAIRS and UNCOVERED in tests/conftest.py). Where Python has sys.monitoring, it costs little, and
# `make test` measures it. A trace function adds 60 % to the time of a test: with Python before 3.12,
# `make coverage` measures it.
HAS_MONITORING := $(shell $(PYTHON) -c 'import sys; print("1" if sys.version_info >= (3, 12) else "")')
COVERAGE_CORE := $(if $(HAS_MONITORING),sysmon,ctrace)

# Development mode debugs asyncio and reports what processes leave open. It takes a tenth more time,
# so the run with the compiled core has it, which is the whole suite. Its debugging allocator is slow
# and left out: `make asan` checks memory.
test: $(PACKAGE) ## Run the whole suite, once for each core
	TREEHUB_LEVEL_CORE=python $(BIN)/python -m pytest $(PARALLEL) -m 'not once'
	TREEHUB_LEVEL_CORE=c PYTHONDEVMODE=1 PYTHONMALLOC=default COVERAGE_CORE=$(COVERAGE_CORE) \
	  $(BIN)/python -m pytest $(PARALLEL) -m 'not builds and not repeated' \
	  $(if $(HAS_MONITORING),--cov --cov-report=)
	$(if $(HAS_MONITORING),$(BIN)/coverage report)

coverage: $(PACKAGE) ## Measure the coverage of the tests marked `covered`; make test does so from Python 3.12 on
	TREEHUB_LEVEL_CORE=c COVERAGE_CORE=$(COVERAGE_CORE) \
	  $(BIN)/python -m pytest $(PARALLEL) -m 'covered and not builds and not repeated' --cov --cov-report=
	$(BIN)/coverage report

lint: $(PACKAGE) ## Check style, spelling and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest treehub_level._core_c
	! $(BIN)/python -c 'import treehub_level._store_c' 2>/dev/null || \
	  $(BIN)/python -m mypy.stubtest treehub_level._store_c

format: $(TOOLS) ## Format the Python sources, and fix what ruff can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# ---------------------------------------------------------------------------------------------------------- long runs

simulate: $(PACKAGE) ## Play one simulated schedule step by step: make simulate SEED=42
	PYTHONPATH=tests $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED))

crash: $(PACKAGE) ## Kill, cut power, fail and damage stores (rows T4 to T7, half an hour)
	$(BIN)/python -m tests.crash --cycles 1000
	$(BIN)/python -m tests.crash --cycles 1000 --power-cut
	$(BIN)/python -m tests.crash.failing --last 300
	$(BIN)/python -m tests.crash.damage --cycles 3000

# With atheris where it has a wheel, else with a mutator, which repeats the inputs of a FUZZ_SEED.
fuzz: $(PACKAGE) ## Fuzz each decoder: make fuzz FUZZ_SECONDS=600
	$(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),60) --seed $(or $(FUZZ_SEED),1)

asan: $(PACKAGE) ## Run the suite with AddressSanitizer and UndefinedBehaviorSanitizer (an hour)
	$(BIN)/python -m tests.sanitizers

soak: $(PACKAGE) ## Run the rows of docs/reliability.md (six hours), or some: make soak ROWS='T2 T8'
	PYTHONPATH=tests $(BIN)/python -m tests.soak $(ROWS)

bench: $(PACKAGE) ## Run the benchmarks
	$(BIN)/python -m benchmarks

# ------------------------------------------------------------------------------------------------------- and the rest

demo: $(PACKAGE) ## Show two clients, a server and a conflict
	$(BIN)/python examples/demo.py

wheel: $(PACKAGE) ## Build the sdist, a wheel with LevelDB inside and a pure wheel into dist/, and try them
	$(BIN)/python -m pytest tests/packaging/test_build.py
	$(BIN)/python tests/packaging/wheels.py make dist

# Hashes for the packages that build, test and upload the published files. The versions are those of
# requirements-dev.txt.
LOCK = build/lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
  --constraint build/lock/versions.txt
LOCKS := .github/requirements

lock: ## Write the hashes of the packages of a release (.github/requirements)
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check --quiet install uv==0.13.9
	grep -v '^#' requirements-dev.txt >build/lock/versions.txt
	rm -f $(LOCKS)/*.txt
	$(LOCK) --python-version 3.10 $(LOCKS)/build.in --output-file $(LOCKS)/build.txt
	$(LOCK) --python-version 3.13 $(LOCKS)/release.in --output-file $(LOCKS)/release.txt
	$(LOCK) --python-version 3.10 pyproject.toml --group test --output-file $(LOCKS)/test.txt

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist demo-data benchmarks/node/node_modules js/node_modules \
	  .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
