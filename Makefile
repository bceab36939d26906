# One verb each. `make demo` and `make test` do all set-up themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard ext/*.pyx ext/*.pxd ext/*.h ext/*/*.pxi) setup.py
.PHONY: setup build test check bench docs demo clean help

help:
	@echo "make demo    a seeded retailer, a bidder and a simulated exchange (DEMO_SECONDS=20 ends by itself)"
	@echo "make test    all tests, real servers included"
	@echo "make check   ruff, mypy --strict, import rules"
	@echo "make bench   benchmarks into bench/results, and the README's table from them"
	@echo "make docs    checks the documentation against the code"
	@echo "make setup   what the others do first: system packages, .venv, compiled modules"

setup: $(VENV)/.built

# -- system packages: by apt when we may, else one line that says what is missing -----------------
$(VENV)/.system:
	@missing=""; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$$missing postgresql"; \
	command -v wrk >/dev/null || missing="$$missing wrk"; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c 'import os, sysconfig; assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' 2>/dev/null || missing="$$missing python3-dev"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null || exit 1; \
	  else \
	    echo "please install:$$missing (redis-server, postgresql and wrk are for tests and benchmarks only)"; \
	  fi; \
	fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: requirements.lock $(VENV)/.system
	@echo "installing locked dependencies into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES) pyproject.toml
	@echo "compiling ext/*.pyx"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

build: setup

# -- checks ---------------------------------------------------------------------------------------
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

docs: setup
	$(BIN)/python -m pytest tests/test_docs.py
	$(BIN)/python bench/report.py --check

bench: setup
	$(BIN)/python bench/run.py

demo: setup
	@$(BIN)/python -m rtb.cli.demo

clean:
	rm -rf build $(VENV) .demo rtb/_ext/*.so
