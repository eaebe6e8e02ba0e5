# Everything sets itself up: `make demo` and `make test` run on a fresh machine with Python 3.11+, git and make.
PORT ?= 8000
DATA_DIR ?= data
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# onnxruntime and onnxruntime-gpu install the same module: exactly one of the two extras is taken.
ACCELERATOR := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# Tests wait as much as they compute; more at once would only make each other late.
AT_ONCE ?= --numprocesses 3 --dist loadfile

.PHONY: demo run test lint format bench clean lock vendor
.DEFAULT_GOAL := demo

demo: $(VENV)/.demo  ## serve a real model and print how to call it
	$(BIN)/python demo/demo.py --port $(PORT) --data-dir $(DATA_DIR)

run: $(VENV)/.base  ## serve what is in DATA_DIR
	$(BIN)/python run.py --port $(PORT) --data-dir $(DATA_DIR)

# Two runs: the acceptance tests keep servers running as children of their process, and some integration tests look
# whether their own process has any left.
test: lint  ## every check
	$(BIN)/python -m pytest $(AT_ONCE) tests/architecture tests/unit tests/integration
	$(BIN)/python -m pytest $(AT_ONCE) tests/acceptance

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test  ## measure against peers; minutes, results in benchmarks/results
	$(BIN)/python -m benchmarks

lock: $(VENV)/.test  ## write the versions in use to constraints.txt
	$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable | sort --ignore-case > constraints.txt

vendor:  ## refresh the vendored browser files
	sh static/vendor/refresh.sh

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis pulvinar.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Pulvinar needs Python 3.11 or newer; name one with PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "A virtual environment cannot be made; on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Pulvinar ($(ACCELERATOR)) into $(VENV) …"
	@$(PIP) --editable '.[$(ACCELERATOR)]'
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Pulvinar ($(ACCELERATOR)) and OpenVINO into $(VENV) …"
	@$(PIP) --editable '.[$(ACCELERATOR),demo]'
	@touch $@ $(VENV)/.base

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Pulvinar ($(ACCELERATOR)) and its checks into $(VENV) …"
	@$(PIP) --editable '.[$(ACCELERATOR),test]'
	@touch $@ $(VENV)/.base $(VENV)/.demo
