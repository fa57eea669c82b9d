# One command each on a fresh machine that has Python 3.11 with venv, make and a C++ compiler.
#   make demo    a simulated scan, reconstructed, in a catalog, as a picture: demo-out/demo.png
#   make test    lint and all tests
#   make lint    ruff, mypy, import contracts
#   make format  let ruff write the code
#   make bench   every number of engines and service, three quarters of an hour; PART=speed for one part (benchmarks/README.md)
#   make bench-peers   other packages on the same data
#   make bench-gpu     all that there is to measure on a GPU, in 8 minutes
#   make faults  kill and break the service in many ways, and count what is lost; QUICK=1 for some minutes (benchmarks/faults)
#   make clean   remove what the others made

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
WORKERS ?= 2
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint format bench bench-gpu bench-peers faults clean
.DEFAULT_GOAL := test

demo: .venv/installed-demo
	$(BIN)/ptyplugin demo --out demo-out

test: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks $(PART) $(if $(QUICK),--quick --name quick)

bench-gpu: .venv/installed-dev
	$(BIN)/python -m benchmarks.gpu $(if $(QUICK),--quick)
	$(if $(QUICK),,$(BIN)/python -m benchmarks.gpu_table)

bench-peers: .venv/installed-dev
	$(BIN)/python -m benchmarks.peers $(PEER)

faults: .venv/installed-dev
	$(BIN)/python -m benchmarks.faults $(if $(QUICK),--short) $(PART)

clean:
	rm -rf .venv .benchmarks .peers build dist demo-out *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found: install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: say make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed-demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing ptyplugin with its demo into .venv (a minute or two, once) ..."
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(INSTALL) --editable '.[server,sim,epics]'
	@touch $@

.venv/installed-dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing ptyplugin with its tests into .venv (a minute or two, once) ..."
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(INSTALL) --editable '.[server,sim,epics,dev]'
	@touch $@ .venv/installed-demo
