# make train   set up, post-train a small model of scenes with UNO and without, print how many prompts are drawn right
# make train DATASET=openmoji   set up, pre-train a tiny model on OpenMoji, post-train it with UNO, print held-out losses
# make test    set up and run the tests
# make test-faults  set up and run the tests of docs/reliability.md, which kill, fill, cut and flip
# make lint    set up, check style and types
# make format  apply automatic fixes and formatting
# All can be interrupted and rerun; training resumes from its last checkpoint.
#
# To use another Python, or another JAX than requirements.txt pins for it, name a separate environment:
#   make test PYTHON=python3.12 VENV=.venv312
#   make test PYTHON=python3.12 VENV=.venv0112 JAX=0.11.2

PYTHON ?= python3
VENV   ?= .venv
JAX    ?=
DATASET ?= scenes
DATA   ?= data/openmoji
RUNS   ?= runs
PYTEST ?= -q -n 2 --dist loadfile

export JAX_PLATFORMS ?= cpu

PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: train train-scenes train-openmoji test test-faults lint format clean same_python

train: train-$(DATASET)

train-scenes: $(VENV)/runtime
	$(VENV)/bin/python -m uno_jax.study --config=configs/study/first_look.py --workdir=$(RUNS)/first_look

train-openmoji: $(VENV)/runtime
	$(VENV)/bin/python -m uno_jax.prepare_data --dataset=openmoji --out=$(DATA)
	$(VENV)/bin/python -m uno_jax.train --config=configs/openmoji_pretrain.py --workdir=$(RUNS)/openmoji_pretrain \
	  --config.data.directory=$(DATA)
	$(VENV)/bin/python -m uno_jax.train --config=configs/openmoji_uno.py --workdir=$(RUNS)/openmoji_uno \
	  --config.data.directory=$(DATA) --config.init_from=$(RUNS)/openmoji_pretrain

test: $(VENV)/development
	$(VENV)/bin/python -m pytest $(PYTEST)

test-faults: $(VENV)/development
	$(VENV)/bin/python -m pytest -m faults $(PYTEST)
	UNO_FUZZ_INPUTS=100000 $(VENV)/bin/python -m pytest tests/fuzz_test.py $(PYTEST)

lint: $(VENV)/development
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/development
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] >= (3, 11) else "uno_jax needs Python 3.11 or later: set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# An existing environment keeps its Python, so PYTHON=... on the command line must have the same version.
same_python: $(VENV)/bin/python
	@[ "$(origin PYTHON)" = file ] || $(VENV)/bin/python -c 'import sys; has, asked = "%d.%d" % sys.version_info[:2], sys.argv[1]; \
	  sys.exit(0 if has == asked else f"$(VENV) has Python {has}, PYTHON=$(PYTHON) is {asked}: run make clean, or set another VENV=...")' \
	  "$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

$(VENV)/runtime: requirements.txt | same_python
	$(PIP) -r requirements.txt
	$(if $(JAX),$(PIP) jax==$(JAX))
	touch $@

$(VENV)/development: requirements.txt requirements-serve.txt requirements-demo.txt requirements-dev.txt | same_python
	$(PIP) -r requirements-dev.txt
	$(PIP) --no-deps -r requirements-demo.txt
	$(if $(JAX),$(PIP) jax==$(JAX))
	touch $@ $(VENV)/runtime
