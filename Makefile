# The first target prints this list: the comments after two hashes.
# Targets that need packages install them into .venv first, and again when pyproject.toml changes.
#   PYTHON=python3.12   the Python of .venv; by default the first below that is 3.11 to 3.13 and has the module venv
#   TORCH_INDEX=URL     index of the packages torch and torchvision, for example of builds without CUDA
IS_SUPPORTED := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
supported = $(shell $(1) -c '$(IS_SUPPORTED)' >/dev/null 2>&1 && echo $(1))
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(call supported,$(name))))
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
RUNS := .venv/for-runs
TESTS := .venv/for-tests
TORCH := $(shell sed -n 's/^ *"\(torch\(vision\)\{0,1\}>=[^"]*\)",$$/"\1"/p' pyproject.toml)
WORKERS := --numprocesses=logical --maxprocesses=8 --dist=loadfile

.PHONY: help run test test-slow test-arm64 test-faults test-load test-hostile reference audit bench-quantize bench-onnx bench-real-onnx bench-networks bench-prune bench-data bench-train bench-cost bench-verdicts bench-results lint clean

help:  ## print this list
	@awk -F ':.*  ## ' '/^[a-z0-9-]+:.*  ## / {printf "  make %-16s%s\n", $$1, $$2}' Makefile
	@echo "Settings: PYTHON=python3.12, TORCH_INDEX=URL of an index with builds of torch without CUDA"

run: $(RUNS)  ## install what a run needs into .venv, then run the main example
	$(BIN)/compress run mobilenet_int8

test: $(TESTS)  ## run the tests that CI runs, on all processor cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS)

lint: $(TESTS)  ## check format, types and directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(TESTS)  ## tests that take minutes each
	$(BIN)/python -m pytest -m slow

test-hostile: $(TESTS)  ## wrong, damaged and malicious inputs; two minutes
	$(BIN)/python tests/hostile/hostile.py

test-faults: $(TESTS)  ## full disks, signals, lost boards, KILLS=100 kills; an hour
	PYTHONPATH=tests/support $(BIN)/python tests/faults/faults.py

test-load: $(TESTS)  ## many images, classes and trials: memory, time, files; under an hour
	$(BIN)/python tests/faults/load.py

test-arm64: $(TESTS)  ## exported files on an emulated arm64 processor
	tests/arm64/setup.sh .cache/arm64 $(BIN)/python
	$(BIN)/python -m pytest -m arm64 -s tests/arm64

reference: $(TESTS)  ## write recipes/KEYS.md, the list of all keys, after a change of a docstring
	$(BIN)/python -m compress.recipe.reference > recipes/KEYS.md

audit: $(TESTS)  ## installed packages with known vulnerabilities
	$(BIN)/python tests/hostile/audit.py

bench-quantize: $(TESTS)  ## INT8 compared with other quantizers; half an hour
	$(BIN)/python tests/bench/bench_quantize.py

bench-onnx: $(TESTS)  ## INT8 of 90 networks of timm, torchvision and others; three to four hours, can be stopped and continued
	$(BIN)/python tests/bench/bench_onnx.py

bench-real-onnx: $(TESTS)  ## INT8 of trained files of others, on images of their domain; 20 minutes
	$(BIN)/python tests/bench/bench_real_onnx.py

bench-networks: $(TESTS)  ## whole recipes on 49 networks of timm and torchvision; two hours, can be stopped and continued
	$(BIN)/python tests/bench/bench_networks.py

bench-prune: $(TESTS)  ## pruning compared with other tools; 75 minutes
	$(BIN)/python tests/bench/bench_prune.py

bench-data: $(TESTS)  ## training batches compared with torchvision's; half a minute
	$(BIN)/python tests/bench/bench_data.py

bench-train: $(TESTS)  ## the training loop compared with a bare one; two minutes
	$(BIN)/python tests/bench/bench_train.py

bench-cost: $(TESTS)  ## GPU hours of the ImageNet recipes
	$(BIN)/python tests/bench/bench_cost.py

bench-verdicts: $(TESTS)  ## false alarms and power of verdicts; a quarter of an hour
	$(BIN)/python tests/bench/bench_verdicts.py

bench-results: $(TESTS)  ## the results table of README.md, networks x targets; half an hour
	$(BIN)/python tests/bench/bench_results.py

clean:  ## remove .venv and caches; runs/ and sweeps/ stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	@$(if $(call supported,$(PYTHON)),,$(error $(or $(PYTHON),python3) is not Python 3.11 to 3.13 with the module venv: install one, or name it: make run PYTHON=/path/to/python3.12))
	$(PYTHON) -m venv .venv

$(RUNS): pyproject.toml | $(BIN)/python
	@echo "Installing PyTorch and the other packages into .venv: $(if $(TORCH_INDEX),2 GB without CUDA,6 GB with CUDA), 2 to 10 minutes"
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url '$(TORCH_INDEX)' $(TORCH))
	$(PIP) -e '.[host]'
	touch $@

$(TESTS): $(RUNS)
	@echo "Installing the tools of the tests into .venv: 1 GB, a minute"
	$(PIP) -e '.[host,dev]'
	touch $@
