# Two commands work alone on a fresh machine with Python >= 3.11, a C compiler and make:
#   make demo   set-up, then the main job on the embedded data set
#   make test   set-up, then the whole test suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PY_SOURCES := src tests benchmarks examples .ci
C_SOURCES := $(shell find csrc -name '*.[ch]' -o -name '*.inc')
CUDA_SOURCES := $(shell find csrc/cuda benchmarks/gpu tests/cuda_emulation -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.h')

.PHONY: demo test test-targets test-long test-c test-clang test-aarch64 check format bench clean

# Stamps: packages for the demo, packages for developing, and the compiled library, which an edit of C renews
# (1-2 s). Packages come from pip's cache where it has them. --no-compile: Python compiles what it imports, and
# compiling all of PyTorch beforehand would take longer than everything else together. For PyTorch without CUDA,
# where the index has it with: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
BUILD_INPUTS := pyproject.toml CMakeLists.txt $(C_SOURCES) \
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

# The sweeps over machines that are not this one: AArch64, and CUDA kernels under the emulator and compiled for each
# GPU. `make test` has a few of each family of CUDA kernels.
test-targets: $(DEV) test-aarch64
	$(PYTEST) -m 'targets and not long'

test-long: $(DEV) test-c
	$(PYTEST)

# The C tests: of this compiler under AddressSanitizer and UndefinedBehaviorSanitizer, of clang optimized, and those
# with threads under ThreadSanitizer. A warning is an error, and both compilers must compute the same floats.
BUILD_TESTS := $(BIN)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DONEBIT_TESTS=ON \
    -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
SANITIZED := $(BUILD_TESTS) -B build/sanitize -DONEBIT_SANITIZE=address,undefined > /dev/null
CTEST := $(BIN)/ctest -j 2 --output-on-failure --test-dir

test-c: $(DEV)
	$(SANITIZED)
	$(BIN)/cmake --build build/sanitize
	$(CTEST) build/sanitize
	$(BUILD_TESTS) -B build/threads -DONEBIT_SANITIZE=thread > /dev/null
	$(BIN)/cmake --build build/threads --target test_base test_engine
	$(CTEST) build/threads -R '^(base|engine)$$'
	@if command -v clang > /dev/null; then $(MAKE) test-clang; \
	elif [ "$$CI" = true ]; then echo "CI must have clang"; exit 1; \
	else echo "skipped: the C tests with clang, which is not installed (apt-get install clang)"; fi

test-clang: $(DEV)
	$(BUILD_TESTS) -B build/clang -DCMAKE_C_COMPILER=clang > /dev/null
	$(BIN)/cmake --build build/clang
	$(CTEST) build/clang
	$(SANITIZED)
	$(BIN)/cmake --build build/sanitize --target digest
	build/sanitize/digest > build/sanitize/floats.txt
	build/clang/digest > build/clang/floats.txt
	cmp build/sanitize/floats.txt build/clang/floats.txt

# The C tests of AArch64, cross-compiled, under user-mode emulation; of families that have no kernel for it the
# portable ones.
AARCH64 := aarch64-linux-gnu
test-aarch64: $(DEV)
	@command -v $(AARCH64)-gcc > /dev/null && command -v qemu-aarch64-static > /dev/null || { echo "test-aarch64 needs: \
	apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"; exit 1; }
	$(BUILD_TESTS) -B build/aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	    -DCMAKE_C_COMPILER=$(AARCH64)-gcc \
	    '-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64-static;-L;/usr/$(AARCH64)' > /dev/null
	$(BIN)/cmake --build build/aarch64
	$(CTEST) build/aarch64

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
