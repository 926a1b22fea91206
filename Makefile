# The whole project in two commands: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test faults check readme clean

# A process a core, a file at a time.
PYTEST := $(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

run: $(VENV)/.installed  ## train the five systems on the embedded digits, in minutes, and print the table
	$(BIN)/mutualign compare --task digits --seeds 1

test: $(VENV)/.installed  ## all tests, with coverage
	$(PYTEST) --cov

faults: $(VENV)/.installed  ## all tests again, for the table of faults that they inject
	$(PYTEST) --faults=results/faults.json

check: $(VENV)/.installed  ## linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/readme.py --check

readme: $(VENV)/.installed  ## tables and pictures of the README, from results/
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/pictures.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
