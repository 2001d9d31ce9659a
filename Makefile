# The commands on a machine that has only Python 3.10+ and make:
#
#     make figures        every notebook executed, every figure in figures/
#     make test           unit tests, doctests, and the notebooks' checked numbers; trained runs
#                         come from results/, and a sample of them is trained anew
#     make test-all       the same, and the notebooks train everything anew, and run at all scales
#
# All set up .venv first, once, with the versions of constraints.txt. Options:
#
#     PYTHON=python3.12   the Python that .venv is made with
#     TORCH=cpu           on Linux without a GPU: torch's CPU build, gigabytes smaller
#     JOBS=2              notebooks or tests at once, one thread each: the same numbers on any
#                         number of cores; JOBS=1 where memory is short (7 GB a notebook)
#     ONLY="02 04"        the notebooks that `make figures` runs, or `make classroom` takes

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
TORCH  ?=
ONLY   ?=

PY    := $(VENV)/bin/python
READY := $(VENV)/.installed
# The constraints hold in every call, so that nothing replaces the pinned torch later.
PIP   := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
ifeq ($(TORCH),cpu)
PIP   += --extra-index-url https://download.pytorch.org/whl/cpu
endif
# Runs in parallel share the cores: one thread each.
ALONE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# Threads that wait asleep: on a machine shared with others, spinning ones cost minutes.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help figures test test-all test-units test-notebooks gpu-dry-run lab lint format sync bench site classroom badges colab-test clean distclean
.DELETE_ON_ERROR:

help: ## this list
	@echo "synflow_lib: prune networks without data, and see the paper's figures come out"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Options (PYTHON, TORCH=cpu, JOBS, ONLY) are explained at the top of the Makefile."

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; say make PYTHON=python3.11")'
	@test -x $(PY) || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing the pinned versions into $(VENV) (once; torch is the large one)"
	@$(PIP) torch torchvision hatchling editables
	@$(PIP) --no-build-isolation -e '.[test]'
	@touch $@

# What figures do not need are installed when first asked for.
$(VENV)/.installed-%: $(READY)
	@echo "installing the extra '$*' into $(VENV)"
	@$(PIP) --no-build-isolation -e '.[$*]'
	@touch $@

figures: $(READY) ## run every notebook; figures, agreement and provenance in figures/
	@$(PY) notebooks/tools/build.py --jobs $(JOBS) --threads 1 $(if $(ONLY),--only $(ONLY))

test: test-units test-notebooks ## unit tests, doctests, then the notebooks' checked cells

test-all: RETRAIN := --retrain
test-all: test ## as test, but the notebooks train all their networks anew

test-units: $(READY) $(VENV)/.installed-site $(VENV)/.installed-browser $(VENV)/.installed-classroom
	@sh tests/install_browser.sh
	@echo "== unit tests and doctests"
	@$(ALONE) $(PY) -m pytest -n $(JOBS) --dist worksteal $(RETRAIN)

# The .ipynb alone: asked for the folder, the doctest plugin would import, and so run, every .py.
test-notebooks: $(READY)
	@echo "== notebooks: stored numbers against a new run"
	@$(ALONE) $(PY) -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=900 \
		--nbval-kernel-startup-timeout=120 -n $(JOBS) --dist loadscope --no-loadscope-reorder \
		$(RETRAIN) notebooks/*.ipynb

gpu-dry-run: $(READY) ## the GPU's code paths without a GPU: differences, mixed devices, waits
	@$(ALONE) $(PY) -W ignore tests/dry_run.py

lab: $(VENV)/.installed-lab ## open the notebooks in JupyterLab
	@$(PY) -m jupyterlab

lint: $(VENV)/.installed-lint ## ruff (format and rules) and the notebook pairs
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) notebooks/tools/build.py --check

format: $(VENV)/.installed-lint ## let ruff format and repair what it can
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

sync: $(READY) ## bring .py and .ipynb of each notebook in step, running nothing
	@$(PY) notebooks/tools/build.py --sync

bench: $(READY) ## speed, training, seeds, explorers and lecture, timed again
	@set -e; unset OMP_WAIT_POLICY; for file in speed training grid_size seed_sweep explorers lecture; do \
		echo "== benchmarks/$$file.py"; $(PY) benchmarks/$$file.py; done
	@unset OMP_WAIT_POLICY; $(PY) benchmarks/training.py --threads 1
	@cat benchmarks/results/*.md > benchmarks/RESULTS.md

site: $(VENV)/.installed-site ## notebooks, guides and API as pages that need no network, in build/site/
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict -f notebooks/tools/site/mkdocs.yml
	@echo "build/site/index.html"

classroom: $(VENV)/.installed-classroom ## student and instructor notebooks, offline slides
	@$(PY) notebooks/tools/classroom.py $(if $(ONLY),--only $(ONLY))

badges: $(READY) ## write the repository's address into badges and setup cells
	@$(PY) notebooks/tools/badges.py

colab-test: $(READY) ## run the notebooks with Colab's versions, from a wheel; docs/colab_test.md
	@$(PY) notebooks/tools/colab_test.py $(if $(ONLY),--only $(ONLY))

clean: ## remove caches and build products (not .venv)
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) \
		-type d -exec rm -rf {} +

distclean: clean ## remove .venv as well
	@rm -rf $(VENV)
