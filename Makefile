# Every target does its own set-up: on a fresh machine it needs nothing but git and Python 3.10 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
READY := $(VENV)/ready
SIZE := 64
DATA := data/openmoji$(SIZE)

.PHONY: train test test-all bench check format docs reference clean

train: $(READY) $(DATA)/openmoji.json
	$(BIN)/python train.py --config configs/spade/openmoji$(SIZE).yaml --logdir logs/openmoji$(SIZE)

test: $(READY)
	$(PYTEST)

test-all: $(READY)
	$(PYTEST) -m "slow or not slow" --durations=20

bench: $(READY)
	$(BIN)/python benchmarks/collect.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/zensical build --strict --clean

reference: $(READY)
	$(BIN)/python scripts/reference_pages.py

$(DATA)/openmoji.json: | $(READY)
	$(BIN)/imagier data openmoji --size $(SIZE) --out $(DATA)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV)
