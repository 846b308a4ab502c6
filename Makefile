# Two commands work alone on a fresh machine with Python >= 3.11, a C compiler and make:
#   make demo   set-up, then the main job on the embedded data set
#   make test   set-up, then the whole test suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PY_SOURCES := src tests benchmarks examples
C_SOURCES := $(shell git ls-files 'csrc/*.c' 'csrc/*.h' 2>/dev/null || find csrc -name '*.[ch]')

.PHONY: demo test test-long test-c check format bench clean

# `installed` is one stamp a set of extras; it depends on all C, because an edit of C needs a re-install (1-2 s).
BUILD_INPUTS := pyproject.toml CMakeLists.txt constraints.txt $(C_SOURCES) $(wildcard csrc/kernels/*/*.inc)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python $(BUILD_INPUTS)
	$(PIP) install -q -c constraints.txt -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -q -c constraints.txt -e '.[all]' pytest pytest-timeout hypothesis ruff mypy clang-format cmake ninja psutil
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/onebit demo

test: $(VENV)/.dev test-c
	$(BIN)/python -m pytest -m 'not long'

test-long: $(VENV)/.dev test-c
	$(BIN)/python -m pytest

# The C tests, under AddressSanitizer and UndefinedBehaviorSanitizer.
test-c: $(VENV)/.dev
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DONEBIT_TESTS=ON -DONEBIT_SANITIZE=ON > /dev/null
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(PY_SOURCES)
	$(BIN)/ruff check $(PY_SOURCES)
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(C_SOURCES)
	$(BIN)/python -m pytest -q tests/layering

format: $(VENV)/.dev
	$(BIN)/ruff format $(PY_SOURCES)
	$(BIN)/ruff check --fix $(PY_SOURCES)
	$(BIN)/clang-format -i $(C_SOURCES)

bench: $(VENV)/.dev
	$(BIN)/cmake -S . -B build/bench -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DONEBIT_TESTS=ON > /dev/null
	$(BIN)/cmake --build build/bench
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf build $(VENV)
