# Needs python3.11, g++ and make; no root. `make VENV=/some/venv demo` uses an environment that you have.
PYTHON ?= python3.11
VENV ?= .venv
BUILD ?= build

PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.obl_magic_installed
WITHOUT_TENSORFLOW := import importlib.util, sys; sys.exit(importlib.util.find_spec("tensorflow") is not None)

.PHONY: setup demo demos test faults lint format bench doctor clean
.DEFAULT_GOAL := demo

setup: $(INSTALLED)

# Who has a TensorFlow keeps it; Horovod is then built for that one.
$(INSTALLED): setup.cfg
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	extras=search,test,horovod-build; \
	if $(PY) -c '$(WITHOUT_TENSORFLOW)'; then extras=cpu,$$extras; fi; \
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[$$extras]"
	$(PY) -m obl_magic install-horovod
	touch $@

demo: setup
	$(PY) notebooks/execute.py notebooks/01_quickstart.ipynb $(BUILD)/01_quickstart.ipynb

# All four, each followed by its tables: one function as a run, a search, an ablation, and the chain of them.
demos: demo
	for name in 02_search 03_ablation 04_chain; do \
	  $(PY) notebooks/execute.py notebooks/$$name.ipynb $(BUILD)/$$name.ipynb || exit 1; \
	done

# Its last line is pytest's. Where CI is set a test that fails is run once more, and both outcomes are told: on a host that
# stops its processors for seconds at a time a deadline may be missed, but hardly twice.
test: setup lint
	$(PY) -m pytest --cov $(if $(CI),--reruns 1)

# Every fault at every place, ten trainings that lose ranks at random, 200 runs in a row; prints a table.
faults: setup
	OBL_FAULTS=all $(PY) -m pytest tests/faults

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup
	$(PY) benchmarks/run.py

doctor: setup
	$(PY) -m obl_magic doctor

clean:
	rm -rf $(BUILD) .mypy_cache .ruff_cache .pytest_cache .coverage

.PHONY: test-keras test-keras-gate

# Keras' own tests, fetched for the installed version: those that pass alone must pass on 2 and on 3 ranks. THEMES="layers/core losses"
# asks for some. The gate runs trainers, callbacks, metrics and losses, each test on 2 or on 3 ranks.
test-keras: setup
	$(PY) tests/keras_conformance/runner.py $(THEMES) --build $(BUILD)/keras-tests

test-keras-gate: setup
	$(PY) tests/keras_conformance/runner.py --gate --spread --build $(BUILD)/keras-tests
