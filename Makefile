# make train   set up, build the data, pre-train a tiny model, post-train it with UNO, show what was learned
# make test    set up and run the tests
# make lint    set up, check style and types
# Each can be interrupted and run again: it goes on where it stopped.

PYTHON ?= python3
VENV   ?= .venv
DATA   ?= data/openmoji
RUNS   ?= runs
PYTEST ?= -q -n 2

export JAX_PLATFORMS ?= cpu

.PHONY: train test lint format clean

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

$(VENV)/runtime: requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/development: requirements.txt requirements-demo.txt requirements-dev.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-demo.txt
	touch $@ $(VENV)/runtime
