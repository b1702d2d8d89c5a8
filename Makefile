# `make demo` and `make test` each install what they need; nothing has to be set up first.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help venv models models-demo lint test sweep sweep-store sweep-transfer demo bench lock clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# What tests of faults need of Debian: root installs it, others go without those tests.
FAULT_TOOLS := { command -v strace && command -v mkfs.ext4 && command -v mkfs.xfs && command -v dbus-daemon && \
	/usr/bin/python3 -c 'import dbusmock'; } >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	strace e2fsprogs xfsprogs dbus python3-dbusmock; } </dev/null

# What the benchmark of transfers compares with.
PEERS := { command -v nginx && command -v aria2c && command -v curl; } >/dev/null || [ "$$(id -u)" != 0 ] || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	nginx-light aria2 curl; } </dev/null

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 @/p' Makefile | tr '@' '\t' | expand -t 20

demo: venv ## install, then the whole story on a real model
	@$(BIN)/python tools/fetch_models.py smollm2 || echo 'demo: going on without a real model'
	@$(BIN)/overair demo

test: lint models ## install, then everything that CI runs
	@$(FAULT_TOOLS)
	@OVERAIR_REQUIRE_MODELS=1 $(BIN)/python -m pytest

sweep: venv ## install, then 10,000 damaged inputs of each kind, and a publisher killed at each call, in about ten minutes
	@$(FAULT_TOOLS)
	@OVERAIR_SWEEP=1 $(BIN)/python -m pytest -q -s tests/property/test_fuzz_inputs.py tests/faults/test_publish.py

sweep-store: venv ## install, then every kill, power cut and failing call that the store can meet, in about an hour; needs root
	@$(FAULT_TOOLS)
	@for sweep in kill calls power contention detectors; do \
		PYTHONPATH=tests $(BIN)/python tests/faults/sweep_$$sweep.py --full || exit 1; done

sweep-transfer: venv ## install, then 100 kills, every cut and the rate limit of a download
	@$(FAULT_TOOLS)
	@PYTHONPATH=tests $(BIN)/python tests/faults/sweep_transfer.py --full

lint: venv ## style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv models ## measure every figure that the README states
	@$(PEERS)
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

venv: $(INSTALLED) ## a virtual environment with what constraints.txt pins

$(INSTALLED): constraints.txt pyproject.toml tools/make_venv.sh
	@sh tools/make_venv.sh $(VENV)
	@$(PIP) install -q --require-hashes -r constraints.txt
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

models: venv ## the real models of the tests
	@$(BIN)/python tools/fetch_models.py smollm2 gemma3-270m

models-demo: venv ## the real model of the demo
	@$(BIN)/python tools/fetch_models.py smollm2

lock: venv ## write constraints.txt anew from pyproject.toml
	@$(PIP) install -q uv
	$(BIN)/uv pip compile -q pyproject.toml --extra dev --extra publish --extra xllamacpp --generate-hashes \
		--no-emit-index-url --no-header --universal --python-version 3.11 -o constraints.txt

clean: ## remove all that make made, the downloaded models too
	rm -rf $(VENV) .models .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
