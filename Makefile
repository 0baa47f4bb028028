# Everything here sets up its own environment first; `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.locked
JOBS   ?= 2

.PHONY: setup demo test check fmt lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "facsimile needs Python 3.11 or newer; say which with: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: setup            ## make people who don't exist, fuse them, seal, check five files, draw demo/index.html
	$(BIN)/facsimile demo --out demo

test: setup            ## the whole suite, offline, on the CPU: JOBS processes of one thread each, file by file
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

check: setup           ## style, types, floors, documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_docs.py tests/test_docs_errors.py tests/test_names.py

fmt: setup             ## put every file in the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:                  ## re-pin requirements.lock (needs uv)
	uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --extra dev \
	  -o requirements.lock pyproject.toml

clean:                 ## forget the environment and the demo
	rm -rf $(VENV) demo
