# Everything that the README promises; needs python3 >= 3.11 with pip and venv, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= runs/reproduce

.PHONY: setup reproduce test test-all test-flower lint bench wheel clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lapg needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

reproduce: $(READY) ## Figure 4, presets paper and recommended, 10 seeds
	$(BIN)/lapg reproduce fig4 --preset paper recommended --out $(OUT)

test: $(READY) ## all but the longer checks
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-all: $(READY) ## the longer checks too
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-flower: ## Flower's tests, the longer ones too, in an environment of its own: it wants older packages than constraints.txt names
	$(PYTHON) -m venv .venv-flower
	.venv-flower/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[flower,gymnasium]' pytest
	.venv-flower/bin/python -m pytest tests/test_flower.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: $(READY)
	$(BIN)/python benchmarks/throughput.py

wheel: $(READY)
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) .venv-flower dist build
