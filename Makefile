# Everything works from a fresh checkout with Python 3.11 or newer and nothing else.
# PYTHON=python3.12 picks another interpreter; ARGS="..." goes to the program behind the target.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CODE   := dosql server tests examples scripts
LOCK   := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# pyright comes with its own node; without this it asks the network for newer versions.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install serve test check format bench bench-cold demo minio test-power test-nightly lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv with the locked dependencies and this project

# Hashes make two installs agree; wheels only, so that no compiler is needed.
$(STAMP): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "dosql needs Python 3.11 or newer; $$($(PYTHON) --version 2>&1) found. Try: make PYTHON=python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "Python lacks its venv module (on Debian: apt-get install python3-venv)." >&2; rm -rf $(VENV); exit 1; }
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c "import server.run, server.app"  # bytecode: starts are fast
	@touch $@

serve: $(STAMP) ## Start the server on 127.0.0.1:8787 (ARGS="--listen 127.0.0.1:9000")
	@exec $(BIN)/dosql serve $(ARGS)

test: $(STAMP) ## Run the tests, except the slow ones (ARGS="-k tenants")
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP) ## Format, lint, types, import floors, documentation, generated code
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/python scripts/generate_sync.py --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_floors.py tests/test_documented.py -k 'not run'

format: $(STAMP) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/python scripts/generate_sync.py

bench: $(STAMP) ## Requests per second, beside a bare SQLite loop in the same run
	$(BIN)/python -m tests.bench.bench $(ARGS)

bench-cold: $(STAMP) ## What copying to a bucket costs, beside the real Litestream (starts MinIO)
	$(BIN)/python -m tests.bench.cold $(ARGS)

demo: $(STAMP) ## Two tenants from one sample database, and what each of them sees
	$(BIN)/python examples/demo.py $(ARGS)

minio: $(STAMP) ## Build the MinIO that the tests start, ahead of them (minutes, once; needs Go)
	@$(BIN)/python -m tests.support.minio

test-power: $(STAMP) ## Cut the power of a loop-mounted disk under load (root, Linux)
	$(BIN)/python -m pytest -m power $(ARGS)

test-nightly: $(STAMP) ## The tests that take minutes
	$(BIN)/python -m pytest -m nightly --timeout 3600 $(ARGS)

lock: $(STAMP) ## Resolve the dependencies again and write requirements/*.txt
	$(LOCK) $(ARGS) --extra dev pyproject.toml -o requirements/dev.txt
	$(LOCK) $(ARGS) --extra server --extra s3 -c requirements/dev.txt pyproject.toml -o requirements/server.txt
	$(LOCK) $(ARGS) --group build -c requirements/dev.txt -o requirements/build.txt

clean: ## Remove .venv, caches and build output (never ./data)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
