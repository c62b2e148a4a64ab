# `make` lists the targets. Everything Python lives in .venv; files named .venv/.* say what has been installed there.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
COMPILE := $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock"

.PHONY: help run test lint format lock bench clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

run: $(VENV)/.run ## Serve on http://127.0.0.1:8000 with an embedded Redis (or as VECTR0_... say)
	@exec $(VENV)/bin/python -m service

test: $(VENV)/.dev ## Run the tests, with what they need beyond Python (installed with apt, where that may be)
	@tests/install-parts
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.dev ## Check style, format and types
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: $(VENV)/.dev ## Format the code
	$(VENV)/bin/ruff check --fix-only
	$(VENV)/bin/ruff format

lock: $(VENV)/.dev ## Lock the newest allowed versions in requirements.txt and requirements-dev.txt
	$(COMPILE) --output-file requirements.txt --extra server pyproject.toml
	$(COMPILE) --output-file requirements-dev.txt --constraint requirements.txt --extra server --group dev pyproject.toml

bench: $(VENV)/.dev ## Measure deliveries, memory and connects
	$(VENV)/bin/python -m benchmarks

clean: ## Remove all that these targets make
	rm -rf $(VENV) build dist *.egg-info tests/bin tests/npm/node_modules tests/app/node_modules .*_cache .hypothesis .schemathesis
	find service tests -name __pycache__ -prune -exec rm -rf {} +

# --clear, because a run that was broken off leaves half of an environment.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements.txt pyproject.toml
	@echo "Installing what the service needs into $(VENV)"
	@$(PIP) install --require-hashes --requirement requirements.txt
	@$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	@echo "Installing what its development needs into $(VENV)"
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@
