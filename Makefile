# A private virtual environment in .venv; nothing is installed outside this folder.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test unit check bench torture clean

demo: .venv/ready
	$(BIN)/python docs/examples/demo.py

test: .venv/ready
	$(BIN)/pytest -n auto

unit: .venv/ready
	$(BIN)/pytest -n auto -m "not slow"

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The long form of every test that has one, hours long; docs/reliability.md says what each does and
# last showed. TORTURE=0.1 does a tenth, TORTURE_ARGS picks tests.
TORTURE ?= 1
TORTURE_ARGS ?= tests
torture: .venv/ready
	mkdir -p build && rm -f build/torture.txt
	CAS_TORTURE=$(TORTURE) CAS_TORTURE_RESULTS=$(CURDIR)/build/torture.txt \
		$(BIN)/pytest -n auto -m torture --timeout 0 $(TORTURE_ARGS)
	cat build/torture.txt

# All workloads at full size, peers installed where they can be; docs/performance.md explains it.
BENCH ?= --scale full --repeat 5
bench: .venv/ready
	$(BIN)/python -m benchmarks $(BENCH)

.venv/ready: pyproject.toml constraints.txt cas/codec/_words.c
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m compileall -q cas cli
	touch .venv/ready

clean:
	rm -rf .venv demo build *.egg-info
