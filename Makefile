# Everything runs in .venv, made here from constraints.txt. PYTHON must be 3.11 or newer.
PYTHON ?= python3
# More of tickwise than its own tests need, such as dev,lm-eval.
EXTRAS ?= dev
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed$(if $(filter-out dev,$(EXTRAS)),-$(EXTRAS))
# One test process a core, each computing with one thread: threads of several processes would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=8

.PHONY: demo test test-all check docs records clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(BIN)/tickwise demo --out out/demo

test: $(STAMP)
	$(PYTEST)

test-all: $(STAMP)
	$(PYTEST) -m "slow or not slow"

check: $(STAMP)
	$(BIN)/ruff check src tests bench docs records
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/structure tests/readme

docs: $(STAMP)
	$(BIN)/python docs/generate.py

records: $(STAMP)
	$(BIN)/python records/table.py

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tickwise needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $(STAMP)

clean:
	rm -rf $(VENV) out build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
