# make demo   trains the character model on a novel        make test   runs the whole suite
# make test-cuda   runs it on a GPU                        make bench-cuda   measures there
# Each sets up .venv on its first call. PYTHON=/path/to/python3.12 chooses the interpreter.

PYTHON ?= python3
VENV ?= .venv
RNNCORE_TEST_TORCH ?= 0
CUDA ?= cuda13
DTYPES ?= float32 float16 bfloat16
TORCH := torch==2.13.0
APT_LINE := sudo apt install build-essential python3-dev python3-venv

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := PYTHONWARNINGS=ignore $(PIP) install --quiet --no-build-isolation --editable
SOURCES := $(wildcard csrc/*/*.cpp csrc/*/*.h csrc/*/*.inl csrc/include/rnncore/*.h src/*)
ARGS ?=
# Small shapes, every cell, forward and backward: under the sanitizer all is many times slower.
SANITIZED := tests/test_minimal.py tests/test_cuda_device.py -k "not thousand and not wider"

.PHONY: help demo test test-nightly test-cuda docs bench bench-cuda lint wheel clean build

help:
	@sed -n 's/^# //p;/^$$/q' Makefile

demo: $(VENV)/.examples $(VENV)/.built
	@$(BIN)/rnncore demo $(ARGS)

test: $(VENV)/.test $(VENV)/.torch-$(RNNCORE_TEST_TORCH) $(VENV)/.built
	$(BIN)/python -m pytest $(ARGS)

test-nightly: $(VENV)/.test $(VENV)/.torch-$(RNNCORE_TEST_TORCH) $(VENV)/.built
	$(BIN)/python -m pytest -m nightly $(ARGS)

# On a machine with a GPU. CUDA=cuda12 where the driver is of CUDA 12.
test-cuda: $(VENV)/.test $(VENV)/.$(CUDA) $(VENV)/.built
	$(BIN)/python -m pytest --device cuda $(ARGS)
	@command -v compute-sanitizer >/dev/null || { \
	  echo "compute-sanitizer is not here: memory and races are not checked"; exit 0; }; \
	for tool in memcheck initcheck racecheck synccheck; do \
	  echo "compute-sanitizer --tool $$tool"; \
	  compute-sanitizer --tool $$tool --error-exitcode 1 --log-file /dev/stderr \
	    $(BIN)/python -m pytest -q --device cuda $(SANITIZED) || exit 1; \
	done

bench-cuda: $(VENV)/.bench $(VENV)/.$(CUDA) $(VENV)/.torch-$(RNNCORE_TEST_TORCH) $(VENV)/.built
	@for dtype in $(DTYPES); do \
	  $(BIN)/rnncore bench --device cuda --shapes listed gpu --dtype $$dtype $(ARGS) || exit 1; \
	done

docs: $(VENV)/.docs $(VENV)/.built
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.bench $(VENV)/.torch-$(RNNCORE_TEST_TORCH) $(VENV)/.built
	$(BIN)/rnncore bench $(ARGS)
	$(BIN)/rnncore bench --shapes recurrent --modes inference $(ARGS)
	$(BIN)/python benchmarks/figures.py

lint: $(VENV)/.lint $(VENV)/.built
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pre-commit run --all-files

wheel: $(VENV)/.wheel
	$(BIN)/python -m build --outdir dist .

build: $(VENV)/.built

clean:
	rm -rf build dist *.egg-info rnncore/*.so docs/_build docs/api/generated $(VENV)

# --- set-up, one stamp for each set of packages ---------------------------------------------------

$(VENV)/.ready:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "No $(PYTHON) here. Install it with:  $(APT_LINE)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "rnncore needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing. Install it with:  $(APT_LINE)"; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig as s; open(os.path.join(s.get_path("include"), "Python.h"))' \
	  2>/dev/null || { echo "Python's headers are missing. Install them with:  $(APT_LINE)"; exit 1; }
	@$(PYTHON) -c 'import os, shutil, sys, sysconfig as s; \
	  c = os.environ.get("CXX") or s.get_config_var("CXX") or "c++"; \
	  sys.exit(shutil.which(c.split()[0]) is None)' || { \
	  echo "A C++ compiler is missing. Install it with:  $(APT_LINE)"; exit 1; }
	@echo "Setting up $(VENV) and building: a minute or two, once."
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	@touch $@

# What pyproject.toml asks for to build, so that a rebuild needs no second environment.
$(VENV)/.base: pyproject.toml | $(VENV)/.ready
	@$(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  > $(VENV)/build-requirements.txt
	$(PIP) install --quiet -r $(VENV)/build-requirements.txt
	@touch $@

$(VENV)/.examples $(VENV)/.docs $(VENV)/.bench $(VENV)/.lint: $(VENV)/.%: $(VENV)/.base
	$(INSTALL) '.[$*]'
	@touch $@ $(VENV)/.built

$(VENV)/.test: $(VENV)/.base
	$(INSTALL) '.[test,examples]'
	@touch $@ $(VENV)/.built

$(VENV)/.cuda12 $(VENV)/.cuda13: $(VENV)/.%: $(VENV)/.base
	$(INSTALL) '.[$*]'
	@touch $@ $(VENV)/.built

$(VENV)/.wheel: $(VENV)/.base
	$(PIP) install --quiet 'build>=1.2'
	@touch $@

# From some package indexes torch brings gigabytes of CUDA along, so it is taken only when asked for.
$(VENV)/.torch-0:
	@touch $@

$(VENV)/.torch-1: $(VENV)/.test
	$(PIP) install --quiet $(TORCH) && touch $@ || \
	  echo "$(TORCH) is not to be had for this Python: what compares with it will be skipped."

$(VENV)/.built: $(SOURCES) setup.py | $(VENV)/.base
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
