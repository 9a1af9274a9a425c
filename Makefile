# A fresh machine needs only make, a package index, and Python 3.11 or newer:
#   make demo    scan the sample files over HTTP and compare every value with netCDF4
#   make test    run the tests
#   make bench   time whole user actions beside the peers, and check every answer
# PYTHON=... chooses the interpreter, VENV=... the environment, ARGS=... what pytest (or
# the benchmarks: ARGS='--quick read_local') is told.

is_new_enough = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,\
	$(shell $(p) -c '$(is_new_enough)' >/dev/null 2>&1 && echo $(p))))
VENV ?= .venv
ARGS ?=
BIN = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test bench fuzz fuzz-long lint format clean

help:
	@echo "make demo    install into $(VENV), scan the sample files over HTTP, compare every value"
	@echo "make test    install into $(VENV), run the tests"
	@echo "make bench   install peers into $(VENV), run all benchmarks: some 12 minutes"
	@echo "make fuzz    scan 20,000 damaged files, compare what is read with h5py and netCDF4"
	@echo "make fuzz-long  look for harmful files by coverage, for FUZZ_S seconds"
	@echo "make lint    check style and types"
	@echo "make format  put the code into the project's format"
	@echo "make clean   remove $(VENV) and everything else that was made"

demo: $(VENV)/.installed
	$(BIN)/python -m byteatlas.cli.demo sample_data

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q $(ARGS)

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/run.py $(ARGS)

fuzz: $(VENV)/.installed
	$(BIN)/python -m fuzz --out fuzz_out $(ARGS)

FUZZ_S ?= 7200
fuzz-long: $(VENV)/.installed-fuzz
	mkdir -p fuzz_out/inputs
	$(BIN)/python -m fuzz.coverage_guided fuzz_out/inputs -max_total_time=$(FUZZ_S) \
	-artifact_prefix=fuzz_out/ $(ARGS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist demo_out fuzz_out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src scanners tests fuzz sample_data -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is renewed when pyproject.toml changes, so that a repeated run installs nothing.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "byteatlas needs Python 3.11 or newer, and there is none on \
	the PATH; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c '$(is_new_enough)' || { echo "byteatlas needs Python 3.11 or newer, but \
	$(PYTHON) is $$("$(PYTHON)" --version 2>&1)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
