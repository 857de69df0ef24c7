# Each target sets up .venv if it is missing or older than pyproject.toml.
# Another Python: make test PYTHON=python3.12
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: run test test-slow test-arm64 test-faults test-load test-hostile audit bench-quantize bench-prune bench-data bench-train bench-cost bench-verdicts lint clean

run: $(INSTALLED)
	$(BIN)/compress run recipes/mobilenet_int8.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

test-arm64: $(INSTALLED)
	tests/arm64/setup.sh .cache/arm64 $(BIN)/python
	$(BIN)/python -m pytest -m arm64 -s tests/arm64

bench-quantize: $(INSTALLED)
	$(BIN)/python tests/bench/bench_quantize.py

bench-prune: $(INSTALLED)
	$(BIN)/python tests/bench/bench_prune.py

bench-data: $(INSTALLED)
	$(BIN)/python tests/bench/bench_data.py

bench-train: $(INSTALLED)
	$(BIN)/python tests/bench/bench_train.py

bench-cost: $(INSTALLED)
	$(BIN)/python tests/bench/bench_cost.py

bench-verdicts: $(INSTALLED)
	$(BIN)/python tests/bench/bench_verdicts.py

test-faults: $(INSTALLED)
	PYTHONPATH=tests/support $(BIN)/python tests/faults/faults.py

test-load: $(INSTALLED)
	$(BIN)/python tests/faults/load.py

test-hostile: $(INSTALLED)
	$(BIN)/python tests/hostile/hostile.py

audit: $(INSTALLED)
	$(BIN)/python tests/hostile/audit.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[host,dev]'
	touch $@

clean:
	rm -rf .venv runs sweeps .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
