# Two commands work alone on a fresh machine with Python >= 3.11, a C compiler and make:
#   make demo   set-up, then the main job on the embedded data set
#   make test   set-up, then the whole test suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PY_SOURCES := src tests benchmarks examples .ci
C_SOURCES := $(shell find csrc -name '*.[ch]')
CUDA_SOURCES := $(shell find csrc/cuda benchmarks/gpu tests/cuda_emulation -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.h')

.PHONY: demo test test-targets test-long test-c check format bench clean

# Stamps: packages for the demo, packages for developing, and the compiled library, which an edit of C renews
# (1-2 s). Packages come from pip's cache where it has them. --no-compile: Python compiles what it imports, and
# compiling all of PyTorch beforehand would take longer than everything else together. For PyTorch without CUDA,
# where the index has it with: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
BUILD_INPUTS := pyproject.toml CMakeLists.txt $(C_SOURCES) $(shell find csrc -name '*.inc') \
  $(shell find src -type d -not -name __pycache__)
PACKAGES := pyproject.toml constraints.txt .ci/requirements.py
BUILD_TOOLS := scikit-build-core cmake ninja
DEV = $(VENV)/.dev-packages $(VENV)/.built
DEV_TOOLS := pytest pytest-timeout pytest-xdist hypothesis ruff mypy clang-format psutil safetensors transformers

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("onebit needs Python 3.11 or later, not " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-packages: $(BIN)/python $(PACKAGES)
	$(BIN)/python .ci/requirements.py train > $(VENV)/demo.txt
	$(PIP) install -q --no-compile -c constraints.txt -r $(VENV)/demo.txt $(BUILD_TOOLS)
	@touch $@

$(VENV)/.dev-packages: $(VENV)/.demo-packages
	$(BIN)/python .ci/requirements.py all > $(VENV)/dev.txt
	$(PIP) install -q --no-compile -c constraints.txt -r $(VENV)/dev.txt $(DEV_TOOLS)
	@touch $@

# cmake and ninja stand in the environment, which no shell needs to activate: hence PATH.
$(VENV)/.built: $(VENV)/.demo-packages $(BUILD_INPUTS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.built
	@$(BIN)/onebit demo

# Two processes share the tests; one that is idle takes over part of what the other still has.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(DEV) test-c
	$(PYTEST) -m 'not long and not targets'

# The sweeps over machines that are not this one: CUDA kernels under the emulator and compiled for each GPU.
# `make test` has a few of each kernel family.
test-targets: $(DEV)
	$(PYTEST) -m 'targets and not long'

test-long: $(DEV) test-c
	$(PYTEST)

# The C tests, under AddressSanitizer and UndefinedBehaviorSanitizer.
test-c: $(DEV)
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DONEBIT_TESTS=ON -DONEBIT_SANITIZE=ON > /dev/null
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure

check: $(DEV)
	$(BIN)/ruff format --check $(PY_SOURCES)
	$(BIN)/ruff check $(PY_SOURCES)
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(C_SOURCES) $(CUDA_SOURCES)
	$(BIN)/python -m pytest -q tests/layering

format: $(DEV)
	$(BIN)/ruff format $(PY_SOURCES)
	$(BIN)/ruff check --fix $(PY_SOURCES)
	$(BIN)/clang-format -i $(C_SOURCES) $(CUDA_SOURCES)

bench: $(DEV)
	$(BIN)/cmake -S . -B build/bench -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DONEBIT_TESTS=ON > /dev/null
	$(BIN)/cmake --build build/bench
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf build $(VENV)
