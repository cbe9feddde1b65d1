# Rarefind: everything a person or CI runs. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadgroup
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## list these
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: install
install: $(INSTALLED) ## make .venv and install Rarefind into it (the others do this first)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Rarefind needs Python 3.11 or newer; $(PYTHON) is older. Say: make PYTHON=python3.12"; exit 1; }
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
test-slow: install ## run the tests that take longest: whole stories in the browser, on real images
	$(PYTEST) -m slow

.PHONY: chaos
chaos: install ## kill server, workers, PostgreSQL in mid-work (CHAOS_KILLS=50, CHAOS_SEED=…); full disks
	$(BIN)/pytest -m chaos tests/chaos

.PHONY: lint
lint: install ## check style, types, imports, templates
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/djlint templates --check --lint --quiet

.PHONY: fix
fix: install ## mend what the checks can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/djlint templates --reformat --quiet || true

.PHONY: bench
bench: install ## measure speed against floors and rivals, to bench/out/results.json
	$(BIN)/python -m bench
