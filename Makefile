# Each target sets up what it needs in .venv, once; calling it again after an interruption goes on from there.
# Wanted on the machine: git, make and Python 3.11 or newer. Nothing is installed outside this folder.

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-all attack fuzz-attestation lint format bench docs acceptance clean distclean setup-run setup-dev

PYTHON ?= $(shell for candidate in python3.11 python3.12 python3.13 python3; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$candidate"; break; }; done)
VENV := .venv/bin
PACKAGES := aegis coreason_enclave
CHECKED := $(wildcard $(PACKAGES) tests tools benchmarks examples)

# Test processes share the cores, so each keeps its numerical libraries to one thread.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ "$$n" -gt 8 ] && n=8; echo "$$n")
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_CBWR=AVX2,STRICT MPLBACKEND=Agg \
	$(VENV)/python -m pytest

# Flower sends usage data and asks for updates unless told otherwise.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

define set_up
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer was not found. Install it, or name it: make PYTHON=/path/to/python3.11 …" >&2; exit 2; }
	@"$(PYTHON)" tools/setup_venv.py $(1)
endef

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

setup-run:
	$(call set_up,all)

setup-dev:
	$(call set_up,all$(comma)dev)

comma := ,

demo: setup-run ## Train over six simulated sites under differential privacy (ARGS="--epsilon 1 …")
	@$(VENV)/aegis demo $(ARGS)

test: setup-dev ## Run the tests, without the slow ones (ARGS="-k ledger …")
	@$(PYTEST) -n $(WORKERS) -m "not slow" $(ARGS)

test-unit: setup-dev ## Run the tests of single rooms: the quick loop while you write (ARGS="-k aggregation …")
	@$(PYTEST) -n $(WORKERS) -m "unit and not slow" $(ARGS)

test-all: setup-dev ## Run every test, the slow ones too; those that measure a rate run alone, at the end
	@$(PYTEST) -n $(WORKERS) -m "not alone" $(ARGS)
	@$(PYTEST) -m alone $(ARGS) || [ $$? -eq 5 ] # 5: ARGS selects none of these

attack: setup-dev ## Run one attack, its slow half too (NAME=clipped_sum; without NAME, list them)
	@[ -n "$(NAME)" ] || { for file in tests/attacked/test_*.py; do \
		name=$$(basename "$$file" .py); echo "  make attack NAME=$${name#test_}	$$(sed -n '1s/"//gp' "$$file")"; \
		done | expand -t 46; exit 0; }; \
	[ -z "$(NAME)" ] || $(PYTEST) -q "tests/attacked/test_$(NAME).py" $(ARGS)

fuzz-attestation: setup-dev ## Damage evidence at random (SECONDS=600 ARGS="--seed 1")
	@$(VENV)/python tools/fuzz_attestation.py --seconds $(or $(SECONDS),60) $(ARGS)

lint: setup-dev ## ruff, mypy --strict, the walls between the packages, the measure of the prose
	@$(VENV)/python -m ruff check $(CHECKED)
	@$(VENV)/python -m ruff format --check --quiet $(CHECKED) || { echo "The layout differs: run make format" >&2; exit 1; }
	@$(VENV)/python -m mypy
	@$(VENV)/lint-imports --no-logo
	@$(VENV)/python tools/prose.py --check $(PACKAGES)

format: setup-dev ## Put imports and layout in order
	@$(VENV)/python -m ruff check --fix-only --quiet $(CHECKED)
	@$(VENV)/python -m ruff format $(CHECKED)

bench: setup-dev ## Measure; tables and plots go to benchmarks/results/ (ARGS="--quick")
	@for file in $(wildcard benchmarks/benchmark_*.py); do \
		$(VENV)/python -m "benchmarks.$$(basename "$$file" .py)" $(ARGS) || exit 1; done

docs: setup-dev ## Check the documentation: links lead somewhere, marked commands run
	@$(VENV)/python tools/check_docs.py $(ARGS)

acceptance: setup-dev ## Run what shows each stage's criterion; the outcome goes to docs/ACCEPTANCE.md
	@$(VENV)/python tools/acceptance.py $(ARGS)

# runs/ is never removed by a target: it holds ledgers, and a ledger is not a cache.
clean: ## Remove caches and build results; keeps .venv and runs/
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist reports benchmarks/results
	@find . -path ./.venv -prune -o -path ./runs -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

distclean: clean ## clean, and .venv too
	@rm -rf .venv
