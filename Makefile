PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint browser clean

# Prune the shipped digit classifier to half its MACs, prove it, benchmark it.
demo: $(VENV)/.demo
	$(BIN)/python tools/demo.py

# Formatting, lint, types and all tests: a worker per core, with a thread each.
test: $(VENV)/.dev lint browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The browser that opens the report's page in its test: a Debian package, no wheel brings one.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || tools/install_browser

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
