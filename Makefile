# Everything a contributor or a CI machine calls. `make help` lists it.
#
#   PYTHON=python3.12   another interpreter for .venv (3.11 or newer; else what scripts/fastest-python says)
#   PORT=9000           where `make run` and `make sandbox` listen
#   ARGS="-k stream"    more arguments for pytest
#   UPGRADE=1           let `make lock` take newer versions

ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell scripts/fastest-python)
endif
PORT   ?= 8080
ARGS   ?=
BIN    := .venv/bin
SPEC   := openapi/modelport.json

# Where it is set, every start would compile the whole program again: a second more for each of hundreds in the suite.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-stalled check lint types imports openapi openapi-check readme readme-check locks-check \
        lock migrate image bench bench-quick bench-kills sandbox ready-to-run ready-to-test

help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ready-to-run ## try it: embedded Postgres, gateway, a real small model, keys and snippets (PORT=8080)
	@exec $(BIN)/modelport demo --port $(PORT)

test: ready-to-test ## the whole test suite (ARGS="-k name" for a part of it)
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

test-stalled: ready-to-test ## the same while everything stands still now and then, as on a busy CI machine (10 to 13 minutes)
	@$(BIN)/python -m tests.support.stalls $(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: lint types imports openapi-check readme-check locks-check ## everything that is checked without running the product
	@echo "check: all good"

lint: ready-to-test ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: ready-to-test ## mypy, strict
	$(BIN)/mypy app scripts

imports: ready-to-test ## the import contracts of pyproject.toml
	$(BIN)/lint-imports --no-logo

openapi: ready-to-test ## write openapi/modelport.json from the code
	@mkdir -p $(dir $(SPEC))
	$(BIN)/modelport openapi > $(SPEC).new && mv $(SPEC).new $(SPEC)

openapi-check: ready-to-test ## openapi/modelport.json is what the code says, and valid
	@$(BIN)/modelport openapi | diff -u $(SPEC) - || { echo "$(SPEC) is not what the code says: run make openapi"; exit 1; }
	$(BIN)/openapi-spec-validator $(SPEC)

readme: ready-to-test ## write the README's tables from the code
	$(BIN)/python scripts/readme_tables.py

readme-check: ready-to-test ## the README's tables are what the code says
	$(BIN)/python scripts/readme_tables.py --check

locks-check: ready-to-test ## the four locks are what pyproject.toml asks for
	UV=$(BIN)/uv scripts/lock --check

lock: ready-to-test ## compile the four locks anew (UPGRADE=1 takes newer versions)
	UV=$(BIN)/uv scripts/lock $(if $(UPGRADE),--upgrade)

migrate: ready-to-run ## bring the database of MODELPORT_DATABASE_URL to this version's schema
	@exec $(BIN)/modelport migrate

image: ## build the container image with whatever builds images here (buildah, podman or docker)
	@for engine in docker podman buildah; do \
	  if $$engine info >/dev/null 2>&1; then exec $$engine build -t modelport .; fi; done; \
	  echo "image: needs docker, podman or buildah"; exit 2

bench: ready-to-test ## Modelport against nginx on this machine, every feature on, about 8 minutes (ARGS="--only live,tls")
	@$(BIN)/python -m bench $(ARGS)

bench-quick: ready-to-test ## the same in two minutes: to see that all of it works
	@$(BIN)/python -m bench --quick $(ARGS)

bench-kills: ready-to-test ## kill -9 two gateways hundreds of times under load: nothing paid twice, nothing lost (ARGS="--kills 50")
	@$(BIN)/python -m bench.kills $(ARGS)

sandbox: ready-to-run ## make run with the four platforms emulated, and a connection for each (PORT=8080)
	@exec $(BIN)/python -m tests.emulators.sandbox --port $(PORT)

ready-to-run: | python
	@$(PYTHON) scripts/prepare.py run

ready-to-test: | python
	@$(PYTHON) scripts/prepare.py test

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "modelport needs Python 3.11 or newer, and '$(PYTHON)' is not: name another with PYTHON=python3.12" >&2; exit 2; }
