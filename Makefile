# Rarefind: everything a person or CI runs. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadgroup
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## list these
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

.PHONY: install
install: $(INSTALLED) ## make .venv and install Rarefind into it (the others do this first)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Rarefind needs Python 3.11 or newer; $(PYTHON) is older. Say: make PYTHON=python3.12"; exit 1; }
	@echo 'Installing Rarefind and its libraries into $(VENV): some 7 GB, about 4 minutes where the network is quick.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: install ## draw 3,200 synthetic specimens (or IMAGES=/path/to/photos), open the server, print a link
	$(BIN)/rarefind demo $(if $(IMAGES),--images "$(IMAGES)")

.PHONY: serve
serve: install ## open the server on your own data folder
	$(BIN)/rarefind serve

.PHONY: test
test: install ## run the tests (browser tests need chromium; they say so if it is missing)
	$(PYTEST) -m 'not slow and not chaos'

.PHONY: test-slow
test-slow: install ## run the tests that take longest: real images, killed servers, stories in the browser
	$(PYTEST) -m slow

.PHONY: chaos
chaos: install ## kill server, workers, PostgreSQL in mid-work (CHAOS_KILLS=50, CHAOS_SEED=…); full disks
	$(BIN)/pytest -m chaos tests/chaos

.PHONY: containers
containers: install ## carry out the Dockerfile in a plain Debian root (needs root and debootstrap)
	$(BIN)/python tests/containers/prove.py $(or $(WORK),/var/tmp/rarefind-containers)

.PHONY: hostile
hostile: install ## send 100,000 generated requests to the JSON API and 100,000 hostile ones to all pages
	RAREFIND_HOSTILE_REQUESTS=$${RAREFIND_HOSTILE_REQUESTS:-100000} $(BIN)/pytest -s \
	  tests/contracts/test_hostile_api.py tests/contracts/test_hostile_pages.py

.PHONY: lint
lint: install ## check style, types, imports, templates, the Dockerfile, and for known holes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/djlint templates --check --lint --quiet
	$(BIN)/hadolint Dockerfile
	@# What it says besides its findings is a line for each of its own silences.
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml app migrations 2>/dev/null
	$(BIN)/python .ci/audit.py constraints.txt

.PHONY: fix
fix: install ## mend what the checks can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/djlint templates --reformat --quiet || true

.PHONY: bench
bench: install ## measure speed against floors and rivals, to bench/out/results.json
	$(BIN)/python -m bench

.PHONY: load
load: install ## 50 people for 10 minutes on a million images (PEOPLE=10 MINUTES=1 PROCESSES=2 FOLDER=kept)
	$(BIN)/python -m bench.load --people $(or $(PEOPLE),50) --minutes $(or $(MINUTES),10) \
	  --processes $(or $(PROCESSES),2) $(if $(FOLDER),--folder "$(FOLDER)")
