PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo native test test-all bench pictures lint clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/dev: requirements.txt requirements-dev.txt requirements-cluster.txt requirements-glue.txt requirements-s3.txt \
             requirements-azure.txt requirements-kafka.txt requirements-iceberg.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements-dev.txt
	@touch $@

demo: $(VENV)/run ## export the embedded ksqlDB's eight sources, with events of today, into demo_lake/
	@$(BIN)/python -m ksql_lake.base.native --try
	$(BIN)/python export_to_data_lake.py --demo

native: $(VENV)/run ## build the native reader (needs a C compiler); make demo and data_lake_config.py do it too
	$(BIN)/python -m ksql_lake.base.native

.PHONY: native-if-cc
native-if-cc: $(VENV)/dev
	@$(BIN)/python -m ksql_lake.base.native --try

test: $(VENV)/dev native-if-cc ## the test suite
	$(BIN)/python -m pytest

test-all: $(VENV)/dev native-if-cc servers ## the test suite, slow checks included
	$(BIN)/python -m pytest -m 'slow or not slow'

.PHONY: servers
servers: $(VENV)/dev ## fetch the object stores that test-all starts (needs Go and npm); without them those tests are skipped
	$(BIN)/python -m tests.stores

bench: $(VENV)/dev native-if-cc ## ours and the alternatives side by side (some minutes; ROWS=200000 for a quick look)
	$(BIN)/python -m benchmarks --rows $(or $(ROWS),2000000)

pictures: $(VENV)/dev ## the pictures of README and docs/monitoring.md (needs chromium)
	$(BIN)/python docs/pictures/make.py

lint: $(VENV)/dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy ksql_lake data_lake_config.py export_to_data_lake.py manage_feeds.py metadata_utils.py benchmarks

.PHONY: wheel image
wheel: $(VENV)/dev ## the package as a wheel in dist/ (pip install dist/*.whl gives the command ksql-lake)
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

image: ## the container image ksql-lake (needs docker)
	docker build -t ksql-lake .

clean: ## remove what make made
	rm -rf $(VENV) demo_lake build dist *.egg-info ksql_lake/base/_native_*.so
