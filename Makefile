# Two promises, on a fresh Debian machine with Python 3.11 or newer:
#   make run    sets up all it needs and serves Docker Hub on 127.0.0.1:5000
#   make test   sets up all it needs and passes

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= mirror.yaml
PYTHONS := 3.11 3.13
export PYTHON

# Tests start some thousand Pythons: each would compile all that it imports (a second of the two and a
# half that a command takes).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test unit pythons others check style types arrows demo bench programs screenshots reference clean

run: $(VENV)/.run
	@$(BIN)/registry-mirror serve --config $(CONFIG)

# What can be got ready at once is: pip waits for the network, apt for the disk, and mypy for one core.
# What each of them has to say comes when it has ended.
test:
	@echo "getting ready: $(VENV), other Pythons', programs, and checks meanwhile (a minute or three)"
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=target check programs others
	$(BIN)/pytest -n 3 --dist loadgroup || $(AGAIN)
	@./tests/pythons.sh run $(PYTHONS)

# Tests that failed beside others run once more, alone: real programs on a full machine are late at
# times. Both reports are printed. What fails twice fails, and so does a run with over ten failures.
AGAIN = $(BIN)/python -m tests.failed_alone

# A minute on two cores, and nothing but Python needed. Half of a test's time is waiting: so there
# are twice as many workers as cores.
unit: $(VENV)/.dev
	$(BIN)/pytest -n 4 --ignore tests/e2e --ignore tests/faults --ignore tests/deploy --ignore tests/bench

# The same on all Pythons that are promised, as far as they are here; `make test` has the oldest and
# the newest of them.
pythons: $(VENV)/.dev
	@./tests/pythons.sh run 3.11 3.12 3.13

# Their environments.
others:
	@./tests/pythons.sh prepare $(PYTHONS)

check: style types arrows

style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

arrows: $(VENV)/.dev
	$(BIN)/lint-imports

# Writes docs/reference.md anew, from the code.
reference: $(VENV)/.dev
	$(BIN)/python -m docs.build_reference

demo: $(VENV)/.dev programs
	$(BIN)/python -m demo

bench: $(VENV)/.dev programs
	$(BIN)/python -m bench $(ONLY)

# The real clients and servers that tests drive. Where root may not install them, the tests that
# need them say what is missing.
programs:
	@./deploy/debian-programs.sh

# The pictures of the admin port's page, in docs/images.
screenshots: $(VENV)/.dev programs
	$(BIN)/python -m tests.browser.screenshots

$(VENV)/.run: pyproject.toml
	@$(PYTHON) deploy/environment.py $(VENV) .
	@touch $@

$(VENV)/.dev: pyproject.toml
	@$(PYTHON) deploy/environment.py $(VENV) '.[dev]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) $(VENV)-3.*
