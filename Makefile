# Everything from a bare clone: `make watch` shows a trained checkpoint, `make quickstart` does the
# main job, `make test` runs the tests.
#
#   PYTHON=python3.12    the Python that makes .venv (3.11 or newer)
#   TORCH=torch==2.12.0  another torch than the pinned one
#   TORCH_INDEX=URL      where pip finds torch: PyTorch's wheel index for your CPU or CUDA version
#   OUTPUT=DIR           where `make quickstart` writes (default: runs/quickstart)
#   QUICKSTART=OPTIONS   options of `generalist quickstart`, such as schedule.minutes=5
#   WATCH=OPTIONS        options of `generalist watch`, such as --steps 100
#   FROM=DIR             the checkpoint that `make ship` puts into checkpoints/catalogue
#   TESTS=PATHS          which tests to run
#   WORKERS=1            how many run side by side (default: as many as there are cores, at most 8)

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
OUTPUT ?= runs/quickstart
QUICKSTART ?=
WATCH ?=
FROM ?= runs/catalogue/checkpoint
TESTS ?= tests
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
STAMP := $(VENV)/.installed
# A changed variable is a changed installation: its value stands in this file.
CHOICE := $(VENV)/.torch
# Another torch than the pinned one wants another triton too.
CHOSEN := torch$(if $(filter torch==2.13.0,$(TORCH)),,|triton)

export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help install watch quickstart ship test test-slow lint format docs release clean FORCE

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv and install generalist with its development tools

watch: $(STAMP) ## the shipped checkpoint plays nine tasks into watch.html, in a minute
	$(BIN)/generalist watch $(WATCH)

quickstart: $(STAMP) ## the main job: demonstrations, tokens, shards, training, rollouts, report
	$(BIN)/generalist quickstart --output $(OUTPUT) $(QUICKSTART)

ship: $(STAMP) ## put a trained checkpoint into checkpoints/catalogue: its scores, its picture
	$(BIN)/generalist export $(FROM) checkpoints/catalogue
	$(BIN)/generalist evaluate catalogue --checkpoint checkpoints/catalogue --out runs/shipped --no-videos
	$(BIN)/generalist watch --picture docs/nine.webp

test: $(STAMP) ## every fast test
	$(PYTEST) -n $(WORKERS) --maxprocesses 8 --dist worksteal -m "not slow" $(TESTS)

test-slow: $(STAMP) ## the tests that train, build wheels or run the long commands of README and docs
	$(PYTEST) -m slow $(TESTS)

lint: $(STAMP) ## ruff, mypy, shellcheck and hadolint
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run
	$(BIN)/hadolint Dockerfile

docs: $(STAMP) ## the documentation as a site in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

release: $(STAMP) ## wheel and source distribution in dist/, each tried in a bare environment
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(BIN)/python -m tests.release dist

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .

clean: ## remove .venv and the tools' caches; data/ and runs/ stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find generalist tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "No '$(PYTHON)' found. Install Python 3.11 or newer, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "generalist needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(CHOICE): FORCE | $(BIN)/python
	@echo '$(TORCH) $(TORCH_INDEX)' | cmp -s - $@ || echo '$(TORCH) $(TORCH_INDEX)' > $@

$(STAMP): pyproject.toml constraints.txt $(CHOICE) | $(BIN)/python
	grep -v -E '^($(CHOSEN))==' constraints.txt > $(VENV)/constraints.txt
	echo '$(TORCH)' >> $(VENV)/constraints.txt
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --index-url $(TORCH_INDEX) '$(TORCH)')
	$(BIN)/python -m pip install -c $(VENV)/constraints.txt -e '.[dev]'
	touch $@
