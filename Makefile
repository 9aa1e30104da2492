PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test lint types bench interop lab sim soak clean

demo: $(VENV)/ready ; $(VENV)/bin/tidings demo
test: $(VENV)/ready ; $(RUN) -m pytest -n auto -m "not interop"
interop: $(VENV)/ready-interop ; $(RUN) -m pytest tests/interop -m interop
lint: $(VENV)/ready ; $(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/lint-imports
types: $(VENV)/ready ; cd $(VENV) && bin/mypy --config-file ../pyproject.toml
bench: $(VENV)/ready-interop ; $(RUN) -m benchmarks
sim: $(VENV)/ready ; $(RUN) -m pip install -q --group sim && $(RUN) -m benchmarks.gossip_sim --seeds 2 --cycles 30 --save benchmarks/results/gossip
soak: $(VENV)/ready ; $(RUN) -m benchmarks.soak --save benchmarks/results/soak.txt
# Needs root and Linux: it makes network namespaces. What the kernel lacks is skipped, and said.
lab: $(VENV)/ready
	$(RUN) -m benchmarks.lab --only matrix,udp,relay,uplink,outage,asleep --repeat 10 --save benchmarks/results/lab.txt
	$(RUN) -m benchmarks.lab --only cables,ladder,direct --save benchmarks/results/ladder.txt
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
