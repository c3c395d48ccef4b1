# Each target does all of its own set-up: `make quickstart` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.requirements-installed
SITE = NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
QUICKSTART_DIR ?= runs/quickstart

.PHONY: quickstart test test-slow lint docs format venv clean

quickstart: $(READY)
	$(RUN) -m launch.train --config=configs/digits.py --config.num_epochs=40 --config.evaluation.likelihood.every_epochs=40 \
		--workdir=$(QUICKSTART_DIR)
	$(RUN) -m launch.eval --workdir=$(QUICKSTART_DIR) --newest_only --num_sizes=6

test: $(READY)
	$(RUN) -m pytest -n 3 --dist worksteal

test-slow: $(READY)
	$(RUN) -m pytest -m slow

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(SITE)

docs: $(READY)
	$(SITE)
	@echo "built: build/site/index.html"

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

venv: $(READY)

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ThermoEBM needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
