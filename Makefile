# make train   set up, build the data, pre-train a tiny model, post-train it with UNO, show what was learned
# make test    set up and run the tests
# make lint    set up, check style and types
# Each can be interrupted and run again: it goes on where it stopped.
# With another Python, or another JAX than requirements.txt has for it, in an environment of its own:
#   make test PYTHON=python3.12 VENV=.venv312
#   make test PYTHON=python3.12 VENV=.venv0112 JAX=0.11.2

PYTHON ?= python3
VENV   ?= .venv
JAX    ?=
DATA   ?= data/openmoji
RUNS   ?= runs
PYTEST ?= -q -n 2

export JAX_PLATFORMS ?= cpu

PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: train test lint format clean same_python

train: $(VENV)/runtime
	$(VENV)/bin/python -m uno_jax.prepare_data --dataset=openmoji --out=$(DATA)
	$(VENV)/bin/python -m uno_jax.train --config=configs/openmoji_pretrain.py --workdir=$(RUNS)/openmoji_pretrain \
	  --config.data.directory=$(DATA)
	$(VENV)/bin/python -m uno_jax.train --config=configs/openmoji_uno.py --workdir=$(RUNS)/openmoji_uno \
	  --config.data.directory=$(DATA) --config.init_from=$(RUNS)/openmoji_pretrain

test: $(VENV)/development
	$(VENV)/bin/python -m pytest $(PYTEST)

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
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] >= (3, 11) else "uno_jax needs Python 3.11 or later; give one with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# An environment that is there keeps its Python: one that was asked for by name has to be that.
same_python: $(VENV)/bin/python
	@[ "$(origin PYTHON)" = file ] || $(VENV)/bin/python -c 'import sys; has, asked = "%d.%d" % sys.version_info[:2], sys.argv[1]; \
	  sys.exit(0 if has == asked else f"$(VENV) has Python {has}, PYTHON=$(PYTHON) is {asked}: make clean, or name another with VENV=...")' \
	  "$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

$(VENV)/runtime: requirements.txt | same_python
	$(PIP) -r requirements.txt
	$(if $(JAX),$(PIP) jax==$(JAX))
	touch $@

$(VENV)/development: requirements.txt requirements-demo.txt requirements-dev.txt | same_python
	$(PIP) -r requirements-dev.txt
	$(PIP) --no-deps -r requirements-demo.txt
	$(if $(JAX),$(PIP) jax==$(JAX))
	touch $@ $(VENV)/runtime
