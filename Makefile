# One word for each chore. Everything happens in .venv; nothing has to be installed by hand before.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Empty: the newest versions that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
DEMO ?= demo

.PHONY: install check test test-slow test-newest test-lowest test-catalogue demo bench bench-search bench-growth manifests \
	clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[dev,onnx]'
	touch $@

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow and not gpu and not catalogue'

test-slow: install
	$(BIN)/pytest -m slow

# In an environment of its own (6 GB): make test-newest PYTHON=python3.12
test-newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=

# Likewise, with the lowest versions that pyproject.toml declares.
test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

test-catalogue: install
	$(BIN)/pytest -m catalogue

demo: install
	$(BIN)/tune-smp demo --outputDir $(DEMO)

# A quarter of an hour, alone on two cores.
bench: install
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[bench]'
	$(BIN)/python -m benchmarks.table

bench-search: install
	$(BIN)/python benchmarks/search_overhead.py
	$(BIN)/python -m benchmarks.search_efficiency

# About an hour, alone on two cores.
bench-growth: install
	$(BIN)/python -m benchmarks.growth collections
	$(BIN)/python -m benchmarks.growth image
	$(BIN)/python -m benchmarks.growth mask
	$(BIN)/python -m benchmarks.growth trials
	$(BIN)/python -m benchmarks.growth workers
	$(BIN)/python -m benchmarks.growth draw

manifests: install
	$(BIN)/python -m tune_smp.manifests

clean:
	rm -rf $(VENV) .venv-newest .venv-lowest $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
