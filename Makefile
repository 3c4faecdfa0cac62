# The table of contents of everything a person can do here. The work itself is in scripts/.

PORT ?= 8080
WORKERS ?= 2
PREFIX ?= /usr/local
DESTDIR ?=

export CARGO_TARGET_DIR ?= $(CURDIR)/target
VENV := .venv
PY := $(VENV)/bin/python
# MINUTES COMMAND: a test that hangs is a failure, and ends.
BOUNDED := python3 scripts/bounded.py
export PYO3_PYTHON := $(CURDIR)/$(PY)

# Folders stand beside the files so that a removed file counts as a change, too.
rust_of = $(shell find $(1) \( -name '*.rs' -o -name Cargo.toml -o -type d \) -not -path '*/target/*' 2>/dev/null)
RUST_SOURCES := Cargo.toml Cargo.lock $(call rust_of,core/Cargo.toml core/src cli bindings/python/Cargo.toml bindings/python/src)
EXTENSION_SOURCES := $(RUST_SOURCES) $(wildcard bindings/python/pyproject.toml bindings/python/build.rs)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help header run test test-rust test-loom test-python test-pythons test-c test-c-valgrind test-c-asan lint format header bench bench-quick fuzz build install clean

help:  ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/bin/toolb  ## Serve the FastAPI example on http://localhost:8080 (PORT=, WORKERS=)
	@scripts/run.sh '$(VENV)' '$(PORT)' '$(WORKERS)'

test: test-tools test-rust test-loom test-python test-pythons test-c test-c-valgrind test-c-asan  ## Install what the tests need, build, and run all of them
	@echo "All tests passed."

test-rust: build/rust.ok  ## The Rust tests: unit, property and documentation tests
	cargo test --locked --workspace --exclude toolb-python --no-run
	@$(BOUNDED) 10 cargo test --locked --workspace --exclude toolb-python
	cargo test --locked --package toolb-core --features crash-points --test crash_points --no-run
	@$(BOUNDED) 5 cargo test --locked --package toolb-core --features crash-points --test crash_points

test-loom: build/rust.ok  ## The models of the lock-free parts: loom with its mutants, and shuttle
	@$(BOUNDED) 20 bash core/tests/loom.sh
	@$(BOUNDED) 10 bash core/tests/shuttle.sh

test-python: $(VENV)/bin/toolb $(VENV)/test.ok  ## The Python and black-box tests (PYTEST= adds arguments)
	$(PY) -m pytest $(PYTEST)

test-pythons: $(VENV)/bin/toolb  ## The same for every other supported Python on this machine (PYTHONS= names more)
	@scripts/pythons.sh $(VENV) $(PYTEST)

test-c: build/rust.ok  ## The C and C++ tests, by CMake and ctest
	@scripts/need.sh cmake cmake "build the C and C++ tests" c++ g++ "build the C++ tests" \
	    ninja ninja-build "test builds by Ninja" pkg-config pkg-config "test builds by pkg-config" \
	    curl curl "ask the examples"
	cmake -S . -B build/cmake -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTOOLB_CARGO_PROFILE=dev
	cmake --build build/cmake --parallel
	ctest --test-dir build/cmake --output-on-failure --no-tests=error

# One thread at a time runs there: without a fair turn one that computes can keep a loop waiting for seconds.
test-c-valgrind: test-c  ## The C and C++ programs of test-c once more, under valgrind
	@scripts/need.sh valgrind valgrind "look for leaks and wild pointers"
	TOOLB_WRAPPER="valgrind --quiet --fair-sched=try --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=99" \
	    ctest --test-dir build/cmake --output-on-failure --no-tests=error --label-regex program

test-c-asan: build/rust.ok  ## The same with AddressSanitizer and UBSan in the C and C++ side
	cmake -S . -B build/asan -DCMAKE_BUILD_TYPE=Debug -DTOOLB_CARGO_PROFILE=dev -DTOOLB_SANITIZE=address,undefined
	cmake --build build/asan --parallel
	ctest --test-dir build/asan --output-on-failure --no-tests=error --label-regex program

.PHONY: test-tools
test-tools:
	@scripts/need.sh cmake cmake "build the C and C++ tests" c++ g++ "build the C++ tests" \
	    ninja ninja-build "test builds by Ninja" pkg-config pkg-config "test builds by pkg-config" \
	    curl curl "run the examples as a person would" valgrind valgrind "look for leaks" strace strace "count system calls in tests"

lint: build/rust.ok $(VENV)/lint.ok  ## Formatting, lints, types, documentation and the rules of the house
	@scripts/lint.sh

format: build/rust.ok $(VENV)/lint.ok  ## Rewrite the sources the way `make lint` wants them
	cargo fmt --all
	$(VENV)/bin/ruff check --fix --quiet .
	$(VENV)/bin/ruff format .

header: build/rust.ok  ## Write include/toolb.h anew from the ffi crate
	@bash scripts/header.sh

bench: $(VENV)/bin/toolb  ## Compare with other servers in one run and print ratios (15 minutes)
	@scripts/bench.sh

bench-quick: $(VENV)/bin/toolb  ## The same with few, short rounds: a smoke test, not a measurement
	@scripts/bench.sh --quick

fuzz: build/rust.ok  ## Run every fuzz target for a while (SECONDS_EACH=60)
	@scripts/fuzz.sh

build: $(VENV)/bin/toolb  ## Build all in release: the extension, libtoolb and the program
	cargo build --locked --release -p toolb-ffi -p toolb-cli

install: build/rust.ok  ## Install libtoolb, its headers and the program under PREFIX (/usr/local)
	@scripts/need.sh cmake cmake "install libtoolb"
	cargo build --locked --release -p toolb-ffi -p toolb-cli
	cmake -S . -B build/install -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=$(abspath $(PREFIX)) -DBUILD_TESTING=OFF
	cmake --build build/install
	DESTDIR=$(DESTDIR) cmake --install build/install
	install -D -m 755 $(CARGO_TARGET_DIR)/release/toolb $(DESTDIR)$(abspath $(PREFIX))/bin/toolb

clean:  ## Remove all that was built, the virtual environment too
	rm -rf build target $(VENV) .pytest_cache .mypy_cache .ruff_cache bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f bindings/python/python/toolb/*.so

# --- What the targets above stand on. A stamp is renewed when what it was made from changes. ---

build/rust.ok: Cargo.toml scripts/rust.sh scripts/need.sh
	@scripts/rust.sh
	@mkdir -p build && touch $@

$(VENV)/run.ok: requirements/build.txt examples/fastapi/requirements.txt scripts/venv.sh
	@scripts/venv.sh $(VENV) requirements/build.txt examples/fastapi/requirements.txt
	@touch $@

$(VENV)/test.ok: requirements/test.txt $(VENV)/run.ok
	@scripts/venv.sh $(VENV) requirements/test.txt
	@touch $@

$(VENV)/lint.ok: requirements/lint.txt $(VENV)/test.ok
	@scripts/venv.sh $(VENV) requirements/lint.txt
	@touch $@

$(VENV)/bin/toolb: $(EXTENSION_SOURCES) $(VENV)/run.ok | build/rust.ok
	@echo "Building the engine and its Python extension (release) ..."
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/maturin develop --release --locked --manifest-path bindings/python/Cargo.toml
	@test -x $@ && touch $@
