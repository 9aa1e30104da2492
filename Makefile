PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test lint types bench interop clean

demo: $(VENV)/ready ; $(VENV)/bin/tidings demo
test: $(VENV)/ready ; $(RUN) -m pytest -n auto -m "not interop"
interop: $(VENV)/ready-interop ; $(RUN) -m pytest tests/interop -m interop
lint: $(VENV)/ready ; $(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/lint-imports
types: $(VENV)/ready ; cd $(VENV) && bin/mypy --config-file ../pyproject.toml
bench: $(VENV)/ready-interop ; $(RUN) -m benchmarks
clean: ; rm -rf $(VENV) build *.egg-info

# A strict editable install lets type checkers resolve the package; it links files, so a new file needs `make -B`.
$(VENV)/ready: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade 'pip>=25.1'
	$(RUN) -m pip install -q -e . --config-settings editable_mode=strict --group test --group lint
	touch $@
$(VENV)/ready-interop: $(VENV)/ready
	$(RUN) -m pip install -q --group interop
	touch $@
