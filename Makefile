# The whole project in two commands: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet -c constraints.txt

# Installed without their dependencies: timm and the peers ask for versions of torchvision, torch and others that the
# tests do not need.
ALONE := timm torchvision skada skorch pytorch-adapt pytorch-metric-learning tabulate

PARALLEL := --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

.PHONY: run photos test coverage check docs tables clean

run: $(VENV)/.user  ## train five recipes on the embedded digits, in minutes, and print the table
	$(BIN)/mutualign compare --task digits --seeds 1 --no-baselines

photos: $(VENV)/.user  ## install what photos need: a pretrained network, and a fast runtime for it
	$(PIP) -e '.[photos]'

test: $(VENV)/.developer  ## all tests: one process per core, file by file
	$(BIN)/pytest $(PARALLEL) --durations=15 --durations-min=5

coverage: $(VENV)/.developer  ## all tests with line and branch coverage; 1.5 times as long
	$(BIN)/pytest $(PARALLEL) --cov

check: $(VENV)/.developer  ## linter, formatter, type checker, and whether tables are those of results/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.tables --check

docs: $(VENV)/.developer  ## the documentation site in site/, with its links and anchors checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

tables: $(VENV)/.developer  ## tables and pictures of README.md and docs/, from results/
	$(BIN)/python -m tools.tables
	$(BIN)/python -m tools.floors
	$(BIN)/python -m tools.pictures

clean:
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .coverage

$(VENV)/.user: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.developer: $(VENV)/.user
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps $(ALONE)
	touch $@
