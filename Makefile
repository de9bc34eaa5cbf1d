# Needs python3.11, g++ and make; no root. `make VENV=/some/venv demo` uses an environment that you have.
PYTHON ?= python3.11
VENV ?= .venv
BUILD ?= build

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.obl_magic_installed
OURS := $(VENV)/.obl_magic_locked
WITHOUT_TENSORFLOW := import importlib.util, sys; sys.exit(importlib.util.find_spec("tensorflow") is not None)

# What the lock holds, beside what the package always needs: an environment to work on it, and Binder's.
LOCKED := cpu,search,test,horovod-build
BINDER := cpu,search,demo,horovod-build
# `make lock UPGRADE=` takes in what setup.cfg has new and leaves all other versions as they are.
UPGRADE := --upgrade
UV_VERSION := 0.13.9
DOCS := "mkdocs~=1.6.1" "mkdocs-material~=9.8" "mkdocstrings-python~=2.0"
UV := $(BUILD)/uv/bin/uv
COMPILE := $(UV) pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-strip-extras $(UPGRADE) \
  --custom-compile-command "make lock"
comma := ,

.PHONY: setup lab demo demos notebooks test test-fast test-newest test-lowest wheel faults lint format bench options pictures docs doctor lock clean
.DEFAULT_GOAL := demo

setup: $(INSTALLED)

# What the lock says, to the byte. An existing TensorFlow is kept with all that it came with: what is missing is then
# found by the ranges of setup.cfg, and Horovod is built for that TensorFlow.
$(INSTALLED): setup.cfg requirements.lock
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	if $(PY) -c '$(WITHOUT_TENSORFLOW)'; then touch $(OURS); fi
	if test -e $(OURS); then \
	  $(PIP) --require-hashes --requirement requirements.lock && \
	  $(PIP) --no-deps --no-build-isolation --editable .; \
	else \
	  $(PIP) --editable ".[$(subst cpu$(comma),,$(LOCKED))]"; \
	fi
	$(PY) -m obl_magic install-horovod
	touch $@

demo: setup
	$(PY) notebooks/execute.py notebooks/01_quickstart.ipynb $(BUILD)/01_quickstart.ipynb

# JupyterLab on the quickstart, with this environment as its kernel; LAB= for more of its options.
lab: setup
	$(PY) -c 'import jupyterlab' 2> /dev/null || $(PIP) --editable ".[lab,search]"
	$(PY) -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (obl_magic)" > /dev/null
	$(VENV)/bin/jupyter-trust notebooks/*.ipynb > /dev/null
	$(PY) -m jupyterlab $(LAB) notebooks/01_quickstart.ipynb

# All four, each followed by its tables: one function as a run, a search, an ablation, and the chain of them.
demos: demo
	for name in 02_search 03_ablation 04_chain; do \
	  $(PY) notebooks/execute.py notebooks/$$name.ipynb $(BUILD)/$$name.ipynb || exit 1; \
	done

# Every notebook anew, with its outputs in place, as they are committed.
notebooks: setup
	$(PY) tests/hosts/test_notebook_of_hosts.py  # on hosts that are simulated
	for path in $(filter-out notebooks/05_hosts.ipynb,$(wildcard notebooks/*.ipynb)); do \
	  TF_CPP_MIN_LOG_LEVEL=3 $(PY) notebooks/execute.py $$path $(BUILD)/kept.ipynb > /dev/null && mv $(BUILD)/kept.ipynb $$path || exit 1; \
	done

# Its last line is pytest's. Where CI is set a test that is marked `timing` is run once more if it fails, and both outcomes are
# told: on a host that stops its processors for seconds at a time a missed deadline is unlikely to be missed twice.
# Two files of tests run at a time; those that take minutes come first. COV=--cov also tells what is covered, in twice the time.
test: setup lint
	$(PY) -m pytest $(COV) -n 2 --dist loadfile --no-loadscope-reorder

# Everything that needs no ranks, no kernel and no TensorFlow, in a minute and a half: for every change.
test-fast: setup
	$(PY) -m pytest -q -n auto -m "not slow and not timing"

# The fast tests and one notebook on real ranks, with the newest and the lowest versions that setup.cfg allows, each in an
# environment of its own; which versions these were stands in $(BUILD)/versions-newest.txt and $(BUILD)/versions-lowest.txt.
test-newest test-lowest: test-%: $(UV)
	PYTHON=$(PYTHON) UV=$(UV) .ci/versions $* $(BUILD)

# dist/: an sdist and a wheel; the wheel is tried in an empty environment, without a compiler.
wheel:
	PYTHON=$(PYTHON) .ci/wheel $(BUILD) dist

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

# Other tools that are measured beside us come to lie apart, so that they change nothing of what is measured.
bench: setup
	test -d $(BUILD)/others || $(PIP) --target $(BUILD)/others --requirement benchmarks/requirements.txt
	$(PY) benchmarks/run.py

# docs/options.md and the stub that editors read, from the one table of options.
options: setup
	$(PY) -c 'from obl_magic.notebook.options import as_markdown; print(as_markdown(), end="")' > docs/options.md
	$(PY) -c 'from obl_magic.api.stub import stub; print(stub(), end="")' > $(BUILD)/stub.pyi
	mv $(BUILD)/stub.pyi obl_magic/__init__.pyi

# The site, in $(BUILD)/site; every link of it leads somewhere.
docs: options
	test -x $(BUILD)/docs/bin/mkdocs || { $(PYTHON) -m venv $(BUILD)/docs && \
	  $(BUILD)/docs/bin/python -m pip install --quiet --disable-pip-version-check $(DOCS); }
	NO_MKDOCS_2_WARNING=1 $(BUILD)/docs/bin/mkdocs build --strict --quiet --site-dir $(abspath $(BUILD)/site)

# The pictures of README and docs, by the tests in a real browser: what they show is what was tested.
PICTURES = run-lab-middle run-lab-end run-dark-end run-notebook-end narrow-end search-end ablation-end failure-end
pictures: setup
	OBL_SCREENSHOTS=$(abspath $(BUILD)/pictures) $(PY) -m pytest -q tests/browser/test_browser.py
	mkdir -p docs/pictures
	cp $(PICTURES:%=$(BUILD)/pictures/%.png) docs/pictures

doctor: setup
	$(PY) -m obl_magic doctor

# Who changes a range or an extra in setup.cfg runs this and commits what it writes. It asks the index alone that the tool
# knows by itself: what this machine's pip is told of mirrors and folders stays out.
lock: $(UV)
	$(COMPILE) setup.cfg $(patsubst %,--extra %,$(subst $(comma), ,$(LOCKED))) --output-file requirements.lock
	$(COMPILE) setup.cfg binder/requirements.in $(patsubst %,--extra %,$(subst $(comma), ,$(BINDER))) \
	  --constraints requirements.lock --output-file binder/requirements.txt

$(UV): Makefile
	$(PYTHON) -m venv $(BUILD)/uv
	$(BUILD)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	touch $@

clean:
	rm -rf $(BUILD) dist .mypy_cache .ruff_cache .pytest_cache .coverage

.PHONY: test-keras test-keras-gate

# Keras' own tests, fetched for the installed version: those that pass alone must pass on 2 and on 3 ranks. THEMES="layers/core losses"
# asks for some. The gate runs trainers, callbacks, metrics and losses, each test on 2 or on 3 ranks.
test-keras: setup
	$(PY) tests/keras_conformance/runner.py $(THEMES) --build $(BUILD)/keras-tests

test-keras-gate: setup
	$(PY) tests/keras_conformance/runner.py --gate --spread $(if $(OBL_PART),--part $(OBL_PART)/8) --build $(BUILD)/keras-tests
