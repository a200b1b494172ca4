# Everything a newcomer needs; `make help` lists it. Nothing but Python 3.11+ and make is assumed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

MODEL     ?= nano
PROFILE   ?= 360p
DEMO      ?= demo

.PHONY: help run test test-all fuzz check fmt engines bench clean
.DEFAULT_GOAL := help

help:     ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vr-trt needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Two environments in one folder: what a run needs, and what development needs on top.
$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu,demo]'
	@touch $@

# torch first and by its exact version, so that no dependency asks for another build of it
$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.run

run: $(VENV)/.run   ## make a demo clip and restore it on the CPU with the embedded model
	$(BIN)/python -m vr_trt.bench.demo_clip $(DEMO)/degraded.mp4
	$(BIN)/vr-trt run $(DEMO)/degraded.mp4 -o $(DEMO)/restored.mp4 --profile $(PROFILE) --model nano --overwrite

test: $(VENV)/.dev  ## tests, without the slow ones
	$(BIN)/python -m pytest -q

test-all: $(VENV)/.dev  ## every test that this machine can run
	$(BIN)/python -m pytest -q -m 'not gpu'

fuzz: $(VENV)/.dev  ## thousands of mutated files through the reader and the command line, SEED=
	$(BIN)/python -m tests.fuzz.campaign --seed $(or $(SEED),0) --keep out/fuzz

check: $(VENV)/.dev ## format, lint, types
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

fmt: $(VENV)/.dev   ## format and fix
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

# What is not named is left to the tool: PRECISION= BACKEND= SM=
engines: $(VENV)/.dev ## build a profile's engines; nano's, for two kinds of cards and the CPU, if nothing is named
	$(BIN)/vr-trt engines build --model $(MODEL) --profile $(PROFILE) $(if $(PRECISION),--precision $(PRECISION)) \
	  $(if $(BACKEND),--backend $(BACKEND)) $(if $(SM),--sm $(SM))

# The plain networks of --against need PyTorch, the plot needs matplotlib.
bench: $(VENV)/.dev ## time nano at 360p beside the plain networks in PyTorch; takes minutes
	mkdir -p out/bench
	$(BIN)/vr-trt bench latency --model $(MODEL) --profile $(PROFILE) --frames 21 --against torch --seconds 300 \
	  --out out/bench/latency.json --plot out/bench/latency.png

clean:    ## remove the environment and what was made
	rm -rf $(VENV) $(DEMO) out build dist
