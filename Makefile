# Every target installs what it needs on a fresh machine (Python 3.11 or newer with pip).
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
CORES ?= 2
PROJECT ?= .
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export SLIDEMILL_DATA ?= $(abspath ../shared/data)

TESTS := python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
APT := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

.PHONY: help demo isbi2012 compare dsb2018 phase_contrast wbc watch check fast-tests test all-tests test-slurm browser slurm napari lint docs bench bench-gpu clean

help: ## list the targets
	@grep -hE '^[a-z0-9_ -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 32

# An environment of an older Python, in which nothing can be installed, is made anew.
IS_NEW := import sys; sys.exit(sys.version_info < (3, 11))
ifneq ($(wildcard $(VENV)/bin/python),)
ifneq ($(shell $(VENV)/bin/python -c '$(IS_NEW)' 2> /dev/null && echo yes),yes)
$(shell rm -rf $(VENV))
endif
endif

$(VENV)/bin/python:
	@$(PYTHON) -c '$(IS_NEW)' 2> /dev/null || { echo "$(PYTHON): Slidemill needs Python 3.11 or newer; name it: make ... PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(VENV)/bin/python pyproject.toml
	python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/dev: $(VENV)/bin/python pyproject.toml
	python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	@touch $@ $(VENV)/demo

demo isbi2012 compare dsb2018 phase_contrast wbc: $(VENV)/demo ## train, segment and report an example in projects/
	@python config/examples/lay_out.py $@ projects/$@
	@snakemake --cores $(CORES) --directory projects/$@
	@python config/examples/show.py projects/$@

watch: $(VENV)/demo ## run the workflow whenever new slides are complete in PROJECT=...; Ctrl-C ends it
	@python workflow/watch.py "$(PROJECT)" --cores $(CORES)

check: ## check style and types and run the fast tests (about 4 minutes)
	@$(MAKE) --no-print-directory --jobs 2 lint fast-tests

test: ## check style and types and run all tests (about 15 minutes)
	@$(MAKE) --no-print-directory --jobs 2 lint all-tests

fast-tests: $(VENV)/dev
	$(TESTS) -m "not slow"

all-tests: $(VENV)/dev browser
	$(TESTS)

test-slurm: $(VENV)/dev slurm ## run the demo through a SLURM of one node, started here and ended again (needs root)
	python -m pytest tests/cluster/slurm.py

slurm: ## install SLURM's daemons (Debian, Ubuntu)
	@{ command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null || { apt-get update -qq && $(APT) slurm-wlm munge; }

browser: ## install Chromium, which the tests of the report page need (Debian, Ubuntu)
	@command -v chromium > /dev/null || { apt-get update -qq && $(APT) chromium; }

napari: $(VENV)/demo ## open SLIDE=... and MASK=... in napari
	@python -c "import napari" 2> /dev/null || python -m pip install --quiet --editable '.[viewer]'
	@python -m pipeline view --slide "$(SLIDE)" --mask "$(MASK)"

lint: $(VENV)/dev ## check style, types, rules
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	mypy
	python config/examples/lay_out.py demo projects/demo
	snakemake --lint --directory projects/demo

docs: $(VENV)/dev ## write the generated pages, the schema and the picture of augmentations from the code
	python config/document.py
	python docs/architecture.py
	python docs/augmentation.py

bench: $(VENV)/dev ## measure; prints one JSON line per figure
	@for figure in weight_map steps predict path sliding_window stitch random_field large_slide memory training boundary touching planning report plate fuzz; do python -m tests.benchmarks.$$figure || exit 1; done

bench-gpu: $(VENV)/dev ## measure on a GPU in about 6 minutes; on the processor with small sizes
	@python -m tests.benchmarks.gpu

clean: ## remove the environment and the examples, not your data
	rm -rf $(VENV) projects
