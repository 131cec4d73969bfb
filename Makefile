# make demo     install into .venv, map the bundled scene, say where the results are
# make test     ruff, mypy and pytest, as the continuous integration runs them
# make lint     ruff and mypy only
# make bench    all benchmarks: tables of ratios (python tests/bench NAME runs one)
# make tables   run what is missing for Tables III-VI of the paper, and print them;
#               DATA=folder SCALE=full|reduced FLAGS='--only III' (examples/tables/README.md)
# make clean    remove what the targets above made
#
# VENV=/path uses an existing environment and installs nothing; PYTHON=python3.12 picks the
# interpreter of a new one; PIP_FLAGS reaches pip (an index of CPU wheels of torch, say).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
PYTEST_ARGS ?= -n 2 --dist loadfile --durations=10

ifdef VENV
bin := $(VENV)/bin
installed-demo :=
installed-dev :=
else
bin := .venv/bin
installed-demo := .venv/demo.stamp
installed-dev := .venv/dev.stamp
endif

SCENE := examples/sichuan_015.tif
DATA ?= data
SCALE ?= auto
FLAGS ?=
MODEL = $(firstword $(wildcard models/*.safetensors))

.PHONY: demo test lint bench tables clean

demo: $(installed-demo)
	@mkdir -p demo
	$(bin)/python -m landslide_mapper detect $(SCENE) --model $(MODEL) \
	  -o demo/slides.gpkg --overlay demo/overlay.png --overwrite
	@echo
	@echo "Landslide polygons:  $(CURDIR)/demo/slides.gpkg"
	@echo "Overlay picture:     $(CURDIR)/demo/overlay.png"
	@echo "In QGIS: drag $(SCENE) and demo/slides.gpkg into the map window;"
	@echo "the polygons come with their style, graduated by confidence."

test: lint
	$(bin)/python -m pytest $(PYTEST_ARGS)

lint: $(installed-dev)
	$(bin)/python -m ruff check .
	$(bin)/python -m ruff format --check .
	$(bin)/python -m mypy

bench: $(installed-dev)
	PYTHONPATH=$(CURDIR) $(bin)/python tests/bench

tables: $(installed-demo)
	$(bin)/python examples/tables/run.py --data '$(DATA)' --scale $(SCALE) $(FLAGS)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lsmap needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	.venv/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	.venv/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@ .venv/demo.stamp

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find landslide_mapper tests -name __pycache__ -type d -prune -exec rm -rf {} +
