# Needs Python 3.11 or newer and make; everything else goes into .venv.
#   make PYTHON=/usr/bin/python3.12 test     with an interpreter of your choice
#   make ARGS="-k settings -x" test          with more arguments for pytest

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Most tests wait for processes, so there are more of them at a time than cores. The files in their order: the last ones
# are the shortest. One at a time: make ARGS="-n 0" test
BESIDE := -n 4 --dist loadfile --no-loadscope-reorder
# Of the long matrix a third is run, another one with each seed, and what shares a worker goes together (tests/support).
#   make SEED=1234 test-full                 that third again
#   make ALL=1 test-full                     all of it
SEED ?= $(shell date +%s)
LONG := -n 3 --dist loadgroup $(if $(ALL),,--sample $(SEED))

# The lowest releases that pyproject.toml takes.
LOWEST := .venv-lowest
RELEASES := celery==5.6.0 kombu==5.6.0 redis==6.4.0

# The first of these that runs, is new enough and can make virtual environments.
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14 python
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(SUITABLE)' >/dev/null 2>&1 && echo $(p))))

# What is compiled is kept, also where a container says otherwise: it is half of what a worker does until it is ready.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-lowest soak check bench format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## an order saga on a real Celery worker, with a worker killed on the way (20 seconds)
	@$(BIN)/python -m examples.ecommerce_order.main

test: $(VENV)/.test ## the test suite, on servers that it starts itself (at most 10 minutes)
	@$(BIN)/python -m pytest $(BESIDE) $(ARGS)

test-full: $(VENV)/.test ## a third of the long matrix: pools x modes x crash sites (15 minutes); SEED=1234 again, ALL=1 whole
	@$(BIN)/python -m pytest -m "full and not rabbitmq" $(LONG) $(ARGS)

test-lowest: $(LOWEST)/.test ## what hangs on Celery, on the lowest releases that are supported (2 minutes)
	@$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile tests/unit/redis tests/unit/orchestrator tests/unit/worker_sdk \
	  tests/integration/pools/test_what_steps_throw.py tests/integration/pools/test_celery_tasks_as_steps.py \
	  -k "unit or cold or listens or died" $(ARGS)

soak: $(VENV)/.test ## 100,000 random workflows against their models, on all cores; COUNT=2000, FIRST=<seed>
	@$(BIN)/python -m tests.models.soak $(if $(COUNT),--count $(COUNT)) $(if $(FIRST),--first $(FIRST)) $(ARGS)

check: $(VENV)/.dev ## formatting, lint, types, floors and unit tests
	$(BIN)/black --check --quiet . || { $(BIN)/black --check . ; exit 1; }
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q $(BESIDE) tests/unit $(ARGS)

format: $(VENV)/.dev ## format the code
	$(BIN)/black --quiet .
	$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.test ## throughput, latency, CPU and memory beside plain Celery, in one go
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove the virtual environment, caches and the demo's data
	rm -rf $(VENV) $(LOWEST) .multiagents .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found (looked for: $(CANDIDATES))."; \
	  echo "Install one (Debian: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3 ..."; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo "$(PYTHON) cannot be used: expected Python 3.11 or newer with venv."; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras, so that installing happens once, and again when pyproject.toml changes.
define installed
$(VENV)/.$(1): pyproject.toml | $(BIN)/python
	@echo "Installing celery-multiagents[$(2)] into $(VENV) (once; a minute or two) ..."
	@$(BIN)/python -m pip install -qq --editable ".[$(2)]"
	@touch $$@
endef
$(eval $(call installed,demo,demo))
$(eval $(call installed,test,test))

$(LOWEST)/.test: pyproject.toml | $(BIN)/python
	@echo "Installing $(RELEASES) into $(LOWEST) (once; about a minute) ..."
	@$(BIN)/python -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install -qq $(RELEASES) --editable ".[test]"
	@touch $@

COMMA := ,
$(eval $(call installed,dev,test$(COMMA)dev))
