PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/installed
TOO_OLD := "frontrunner needs Python 3.11 or newer, " + sys.executable + " is " + sys.version.split()[0]
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := frontrunner.py operators profiler proxy_train search tests

# A hundred processes would else compile the sources again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: search test docs clean

search: $(INSTALLED)
	$(VENV)/bin/frontrunner search configs/quick.yaml

test: $(INSTALLED)
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy --num-workers 2
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pytest -n 3

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

$(VENV)/installed-docs: $(INSTALLED)
	$(INSTALL) --editable '.[docs]'
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and $(TOO_OLD))'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[test]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
