# Everything from a fresh checkout: each target makes the environment it needs, and installs the package into it.
# It takes Python >= 3.10, a C compiler and network access to a package registry.
#
#   make test                                     the whole suite, once for each core
#   make test PYTHON=python3.13 VENV=.venv-3.13   the same with another interpreter
#   make fuzz FUZZ_SECONDS=600                    hostile input, for so long at each decoder

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

TOOLS := $(VENV)/tools.stamp
LEVELDB := $(VENV)/leveldb.stamp
PACKAGE := $(VENV)/package.stamp
SOURCES := $(shell find src -name '*.py' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' \
  -o -name '*.cmake' -o -name py.typed)

AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo -n)

ON_ALL_CORES := --numprocesses=auto --dist=worksteal

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: asan bench clean crash demo fuzz help lint simulate soak test wheel

help:
	@echo 'make demo | test | lint | bench | simulate | crash | fuzz | asan | soak | wheel | clean'

$(TOOLS): requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "treehub-level needs Python 3.10 or later")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --requirement requirements-dev.txt
	touch $@

# LevelDB itself, for the native engine, by apt where that can be. Without it the package is built all the same, on plyvel.
$(LEVELDB): | $(TOOLS)
	@if ! echo '#include <leveldb/c.h>' | $(CC) -E - >/dev/null 2>&1; then \
	  (set -x; $(AS_ROOT) apt-get -qq update; $(AS_ROOT) apt-get -qq install -y g++ libleveldb-dev libsnappy-dev) || \
	  echo 'LevelDB could not be installed, so the package is built without its native engine, and works through plyvel.' \
	    'For the engine install g++, libleveldb-dev and libsnappy-dev, or the like, then: make clean'; \
	fi
	@touch $@

$(PACKAGE): $(TOOLS) $(LEVELDB) pyproject.toml CMakeLists.txt $(SOURCES)
	$(PIP) install --no-build-isolation --force-reinstall --no-deps .
	touch $@

demo: $(PACKAGE)
	$(BIN)/python examples/demo.py

# In Python's development mode, which tells of what was left open, but with the usual allocator: `make asan` watches
# memory, and does it better. Coverage is measured with the compiled core: that run has the tests that hold both cores
# side by side.
test: export PYTHONDEVMODE = 1
test: export PYTHONMALLOC = default
test: $(PACKAGE)
	TREEHUB_LEVEL_CORE=python $(BIN)/python -m pytest $(ON_ALL_CORES) -m 'not once'
	TREEHUB_LEVEL_CORE=c $(BIN)/python -m pytest $(ON_ALL_CORES) --cov --cov-report=
	$(BIN)/coverage report

lint: $(PACKAGE)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest treehub_level._core_c
	! $(BIN)/python -c 'import treehub_level._store_c' 2>/dev/null || \
	  $(BIN)/python -m mypy.stubtest treehub_level._store_c

# Rows T4 to T7 of docs/reliability.md, at their figures: about half an hour.
crash: $(PACKAGE)
	$(BIN)/python -m tests.crash --cycles 1000
	$(BIN)/python -m tests.crash --cycles 1000 --power-cut
	$(BIN)/python -m tests.crash.failing --last 300
	$(BIN)/python -m tests.crash.damage --cycles 3000

# All long runs, one after another: make soak ROWS='T2 T8'. One schedule of the simulation, told step by step: make simulate SEED=42.
soak: $(PACKAGE)
	PYTHONPATH=tests $(BIN)/python -m tests.soak $(ROWS)

simulate: $(PACKAGE)
	PYTHONPATH=tests $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED))

bench: $(PACKAGE)
	$(BIN)/python -m benchmarks

# By atheris where there is a wheel of it, else by a mutator: the same inputs for the same FUZZ_SEED.
fuzz: $(PACKAGE)
	$(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),60) --seed $(or $(FUZZ_SEED),1)

# The suite, on a build with AddressSanitizer and UndefinedBehaviorSanitizer: most of an hour.
asan: $(PACKAGE)
	$(BIN)/python -m tests.sanitizers

# For the interpreter of this environment: dist/ gets the source distribution, a wheel with LevelDB inside, and a pure one.
wheel: $(TOOLS) $(LEVELDB)
	$(BIN)/python tests/packaging/wheels.py make dist

clean:
	rm -rf $(VENV) build dist demo-data benchmarks/node/node_modules js/node_modules .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
