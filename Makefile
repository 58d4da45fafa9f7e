# molt: build, test, demo, bench. Everything that these targets need they make themselves; nothing outside this folder and
# the user's caches is touched.
#
#   make demo    builds, starts worker and Django, checks, loads, prints the figures, draws a page, stops everything
#   make test    builds and runs every test
#   make chaos   kills and stops clients and workers at random (KILLS=n or MINUTES=m, SEED=s; MEMFD=1: segments without a name)
#   make soak    a long load with kills: curves of memory, descriptors, latency (MINUTES=n)
#   make bench   everything measured, beside the alternatives, and one page of charts (QUICK=1: within five minutes)
#   make gate    instructions of the hot paths, and sizes, against the committed baseline (needs valgrind)
#   make fuzz    hostile peers' bytes under libFuzzer, SECONDS=60 for each target (TARGETS='ring table': these alone)
#   make sanitize  the transport's tests under the address sanitizer, its shared words and bytes under the thread sanitizer
#   make wheel   one wheel with client, worker and stat tool into dist/, for machines without Rust
#   make build   the programs into target/release/, the Python environment into .venv/

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where cargo builds; CARGO_TARGET_DIR may point to a warm cache. The programs are always found in target/release/.
TARGET := $(or $(CARGO_TARGET_DIR),target)
OUT := target/release
PROGRAMS := molt_worker molt-shm-stat libdemo_entries.so
CARGO := cargo
STEP = printf '\n\033[1m== %s\033[0m\n'

CLIENT_SOURCES := $(shell find client-py ipc-shm/src -type f \( -name '*.rs' -o -name '*.py' -o -name '*.toml' \) -not -path '*/_native/*' -not -path '*/tests/*') Cargo.lock
REQUIREMENTS := django_app/requirements.txt django_app/requirements-test.txt bench/requirements.txt

.PHONY: help
help:
	@sed -n 's/^#   //p' $(MAKEFILE_LIST)

# Each package is built by itself: built together, their features would be joined and DataFusion compiled once more.
.PHONY: programs
programs:
	@$(STEP) 'Programs (the first time compiles DataFusion: about 20 minutes on 2 cores)'
	$(CARGO) build --release --locked -p molt-shm-stat
	$(CARGO) build --release --locked -p demo-entries
	$(CARGO) build --release --locked -p molt-engine
	@mkdir -p $(OUT)
	@for program in $(PROGRAMS); do \
	  [ "$(TARGET)/release/$$program" -ef "$(OUT)/$$program" ] || { \
	    cp -f "$(TARGET)/release/$$program" "$(OUT)/.$$program.new" && mv -f "$(OUT)/.$$program.new" "$(OUT)/$$program"; }; done

$(VENV)/.requirements: $(REQUIREMENTS)
	@$(STEP) 'Python environment in $(VENV)/'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(REQUIREMENTS))
	@touch $@

$(VENV)/.client: $(VENV)/.requirements $(CLIENT_SOURCES)
	@$(STEP) 'molt_accel into $(VENV)/'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check './client-py[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps ./client-py
	@touch $@

.PHONY: environment
environment: $(VENV)/.client

.PHONY: build
build: environment programs

.PHONY: wheel
wheel: build
	@$(STEP) 'Wheel'
	@$(BIN)/python client-py/build_wheel.py --programs $(OUT) --out dist

.PHONY: demo
demo: build
	@$(STEP) 'Demo'
	@$(BIN)/python -m bench demo

# The transport's peers in Rust: a program that nothing else needs.
.PHONY: transport-bench
transport-bench:
	@$(STEP) 'The peers of the transport'
	$(CARGO) build --release --locked -p molt-transport-bench
	@mkdir -p $(OUT)
	@[ "$(TARGET)/release/molt-transport-bench" -ef "$(OUT)/molt-transport-bench" ] || \
	  cp -f "$(TARGET)/release/molt-transport-bench" "$(OUT)/molt-transport-bench"

# The hot paths for the regression gate (bench/gate/).
.PHONY: gate-program
gate-program:
	@$(STEP) 'The hot paths'
	$(CARGO) build --release --locked -p molt-gate
	@mkdir -p $(OUT)
	@[ "$(TARGET)/release/molt-gate" -ef "$(OUT)/molt-gate" ] || cp -f "$(TARGET)/release/molt-gate" "$(OUT)/molt-gate"

.PHONY: gate
gate: gate-program build
	@$(STEP) 'Regression gate: instructions of the hot paths, and sizes'
	@$(BIN)/python -m bench gate

# The demo's entries behind a Unix socket, without shared memory.
.PHONY: ablation-program
ablation-program:
	@$(STEP) 'Entries without shared memory'
	$(CARGO) build --release --locked -p molt-ablation
	@mkdir -p $(OUT)
	@[ "$(TARGET)/release/molt-ablation" -ef "$(OUT)/molt-ablation" ] || \
	  cp -f "$(TARGET)/release/molt-ablation" "$(OUT)/molt-ablation"

.PHONY: bench
bench: build transport-bench ablation-program
	@$(STEP) 'Measurement, and its page (report.html)'
	@$(BIN)/python -m bench run $(if $(QUICK),--quick)

.PHONY: test
test: test-transport test-proofs test-chaos test-entries test-engine test-python

# Tests in which it makes a difference whether the segment has a name; the others map no segment, or are about names.
NAMELESS_TESTS := calls deaths faults fork hostile loops lost pins pulse queue reuse start strangers

.PHONY: test-transport
test-transport:
	@$(STEP) 'Tests of the transport and of the C ABI'
	$(CARGO) test --release --locked -p molt-ipc-shm
	@$(STEP) 'The same with segments that have no name'
	MOLT_TEST_SEGMENT=memfd $(CARGO) test --release --locked -p molt-ipc-shm $(foreach test,$(NAMELESS_TESTS),--test $(test))
	@$(STEP) 'Tests of molt-shm-stat'
	$(CARGO) test --release --locked -p molt-shm-stat
	MOLT_TEST_SEGMENT=memfd $(CARGO) test --release --locked -p molt-shm-stat
	$(CARGO) test --release --locked -p molt-client
	$(CARGO) test --release --locked -p molt-transport-bench --no-default-features

# The shared words in every order (spec/proofs.md), then each step taken out that the proofs rest on.
.PHONY: test-proofs
test-proofs:
	@$(STEP) 'Proofs of the shared words'
	RUSTFLAGS="--cfg loom" $(CARGO) test --release --locked -p molt-ipc-shm --test loom --target-dir $(TARGET)/loom
	$(CARGO) test --release --locked -p molt-ipc-shm --test mutants

# What a hostile peer can send (spec/fuzzing.md), under libFuzzer and the address sanitizer. `make test` runs the same
# functions without both: the kept corpus and a short burst (ipc-shm/tests/fuzz.rs). The compiler's unstable flags are let
# through for these commands alone. Needs a C++ compiler, for libFuzzer.
FUZZ := $(abspath $(TARGET))/fuzz
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
SECONDS ?= 60

.PHONY: fuzz-programs
fuzz-programs:
	@$(STEP) 'Fuzz targets (the first time compiles libFuzzer, and Arrow under the sanitizer: 5 to 8 minutes on 2 cores)'
	RUSTC_BOOTSTRAP=1 $(CARGO) build --release --config ipc-shm/fuzz/libfuzzer.toml --manifest-path ipc-shm/fuzz/Cargo.toml \
	  --features libfuzzer --target $(HOST) --target-dir $(FUZZ)

.PHONY: fuzz
fuzz: fuzz-programs
	@$(STEP) 'Fuzzing, $(SECONDS) seconds each; what is found goes to $(FUZZ)'
	@$(PYTHON) ipc-shm/fuzz/run.py --seconds $(SECONDS) --found $(FUZZ)/found $(FUZZ)/$(HOST)/release $(TARGETS)

# What the last runs found and the kept corpus does not reach goes into the kept corpus, as few inputs as will do.
.PHONY: fuzz-keep
fuzz-keep: fuzz-programs
	@$(PYTHON) ipc-shm/fuzz/run.py --keep --found $(FUZZ)/found $(FUZZ)/$(HOST)/release $(TARGETS)

# The transport under the sanitizers (spec/proofs.md), each after it was shown a fault that it must see.
SANITIZE = $(PYTHON) ipc-shm/sanitize/run.py --out $(abspath $(TARGET))/sanitize

.PHONY: sanitize sanitize-thread sanitize-address
sanitize: sanitize-thread sanitize-address

sanitize-thread:
	@$(STEP) 'Shared words and bytes under the thread sanitizer'
	@$(SANITIZE) thread

sanitize-address:
	@$(STEP) 'Tests of the transport under the address sanitizer (the first time compiles Arrow under it: 5 minutes on 2 cores)'
	@$(SANITIZE) address $(TESTS)
	@$(if $(TESTS),,$(STEP) 'The same with segments that have no name')
	@$(if $(TESTS),,MOLT_TEST_SEGMENT=memfd $(SANITIZE) address $(foreach test,$(NAMELESS_TESTS),--test $(test)))

# Real clients and workers, killed and stopped (spec/survival.md). Built by itself: its failpoints are no part of the product.
CHAOS := $(CARGO) run --quiet --release --locked -p molt-chaos --

.PHONY: test-chaos
test-chaos:
	@$(STEP) 'A kill at every failpoint, then at random'
	$(CARGO) test --release --locked -p molt-chaos
	@$(CHAOS) failpoints
	@$(CHAOS) failpoints --memfd
	@$(CHAOS) random --kills 200 --seed 1
	@$(CHAOS) random --kills 100 --seed 2 --memfd

.PHONY: chaos
chaos:
	@$(STEP) 'Random kills and stops'
	@$(CHAOS) random $(if $(KILLS),--kills $(KILLS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(CHAOS_WORKER),--worker $(CHAOS_WORKER)) $(if $(MEMFD),--memfd)

.PHONY: chaos-stop
chaos-stop:
	@$(STEP) 'A stop (SIGSTOP, later SIGCONT) at every failpoint'
	@$(CHAOS) failpoints --stop $(if $(MEMFD),--memfd)

.PHONY: soak
soak:
	@$(STEP) 'Soak: $(or $(MINUTES),60) minutes'
	@$(CHAOS) soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)) $(if $(CHAOS_WORKER),--worker $(CHAOS_WORKER)) $(if $(MEMFD),--memfd)

.PHONY: test-entries
test-entries:
	@$(STEP) 'Tests of native entries'
	$(CARGO) test --release --locked -p molt-entry
	$(CARGO) test --release --locked -p demo-entries

# Tests in which it makes a difference whether the segment has a name; the others ask for SQL and manifests, whatever carries them.
NAMELESS_ENGINE_TESTS := clients fair native requests start stat stop supervise tables time upgrade watchdog

.PHONY: test-engine
test-engine:
	@$(STEP) 'Tests of the worker'
	$(CARGO) test --release --locked -p molt-engine
	MOLT_TEST_SEGMENT=memfd $(CARGO) test --release --locked -p molt-engine $(foreach test,$(NAMELESS_ENGINE_TESTS),--test $(test))

# The same for Python.
NAMELESS_PYTHON_TESTS := async calls django forks processes recovery residents tables

.PHONY: test-python
test-python: build gate-program ablation-program
	@$(STEP) 'Tests of molt_accel, of the Django project and of the measurement'
	$(BIN)/python -m pytest -q client-py/tests
	MOLT_TEST_SEGMENT=memfd $(BIN)/python -m pytest -q $(foreach test,$(NAMELESS_PYTHON_TESTS),client-py/tests/test_worker_$(test).py)
	cd django_app && ../$(BIN)/python -m pytest -q
	$(BIN)/python -m pytest -q bench/tests

.PHONY: clean
clean:
	rm -rf target dist $(VENV) bench/results django_app/data/report-*
