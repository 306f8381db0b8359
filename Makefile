# `make help` lists what there is. Everything runs in .venv, which the first command that needs it creates.

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
PIP = @echo "Installing into $(VENV): a minute or two, once."; $(BIN)/python -m pip install --quiet --disable-pip-version-check
# -E: the manual reads tables out of the packages, whose changes Sphinx does not see.
SPHINX = $(BIN)/python -m sphinx -E -W --keep-going -q -b html

# Processes of `make test`, and anything else to pass on to pytest.
JOBS ?= 2
PYTEST_ARGS ?=

# Without a seed every fuzzer picks a new one and prints it.
FUZZ_SEED ?=
FUZZ_COUNT ?= 500

PACKAGES = $(wildcard vta runtime vta_sim fpga vta_hw compiler)
FUZZERS = $(subst /,.,$(patsubst %.py,%,$(shell find tests -name 'fuzz*.py' | LC_ALL=C sort)))
BENCHMARKS = bench/functional.py bench/session.py bench/schedules.py bench/resnet18_cycles.py bench/networks.py bench/accuracy.py bench/equalisation.py bench/engine_speed.py
FPGA_BENCHMARKS = bench/area.py bench/frequency.py

.PHONY: help demo test check bench bench-fpga fuzz docs clean
.NOTPARALLEL:

help:
	@echo "make demo    compile the demo network, run it on every engine, compare the answers"
	@echo "make test    the tests                     (JOBS=$(JOBS), PYTEST_ARGS=...)"
	@echo "make check   lint, types, layering, documentation"
	@echo "make fuzz    random programs and damaged files  (FUZZ_SEED=..., FUZZ_COUNT=$(FUZZ_COUNT))"
	@echo "make bench   the figures of bench/RESULTS.md, measured here, without those of FPGAs"
	@echo "make bench-fpga    those of FPGAs, with minutes for each design"
	@echo "make docs    the manual, into docs/_build/html"
	@echo "make clean   remove what can be made again, but not $(VENV)"
	@echo "PYTHON=...   the Python to make $(VENV) with (now: $(PYTHON))"

demo: $(VENV)/.demo
	$(BIN)/vta demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/python -m pytest -q tests/test_layering.py
	$(SPHINX) docs docs/_build/html

docs: $(VENV)/.check
	$(SPHINX) docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench-fpga: BENCHMARKS = $(FPGA_BENCHMARKS)
bench bench-fpga: $(VENV)/.bench
	@set -e; for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file; done

# All of them, even when one has found something.
fuzz: $(VENV)/.test
	@status=0; for module in $(FUZZERS); do echo "== $$module"; \
	  $(BIN)/python -m $$module --count $(FUZZ_COUNT) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED)) || status=1; \
	done; exit $$status

clean:
	rm -rf build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name $(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# One empty file per set of extras says that it is installed, for as long as pyproject.toml does not change:
# no command touches the network when nothing has changed.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[dev]"
	@touch $@ $(VENV)/.demo

$(VENV)/.check: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[dev,docs]"
	@touch $@ $(VENV)/.demo $(VENV)/.test

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[bench,fpga,networks]"
	@touch $@ $(VENV)/.demo

# The checks are Python 2 as well, so that an old interpreter can say that it is old.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) was not found: install Python 3.11 or newer (Debian: apt install python3 python3-venv) or name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python must be 3.11 or newer, not %d.%d: name a newer one with make PYTHON=..." % sys.version_info[:2])'
	@$(PYTHON) -c 'import sys, importlib.util as u; u.find_spec("venv") and u.find_spec("ensurepip") or sys.exit("The venv module of this Python is missing: Debian and Ubuntu bring it in the package python3-venv (apt install python3-venv)")'
	@$(PYTHON) -m venv $(VENV)
