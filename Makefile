# Set-up, the demo and the tests. `make help` lists what there is.
#
# Everything runs in .venv, made once from the locked requirements and again when a lock changes.
# PYTHON=/path/to/python picks the Python to make it from (3.11 or 3.12).

VENV := .venv
BIN := $(VENV)/bin
MODEL_DIR ?= runs/demo
PYTHON ?=
# Processes of `make test`; each may take 3 GB.
TEST_WORKERS ?= 2

SUPPORTED = import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
PIP_FLAGS = --quiet --disable-pip-version-check --no-input --no-deps
# The newest pip the machine has works; the environment need not have one of its own.
PIP = $$($(BIN)/python -c 'import pip' 2>/dev/null && echo "$(BIN)/python -m pip" \
	|| echo "$$(cat $(VENV)/.base) -m pip --python $(BIN)/python") install $(PIP_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint format docs wheel setup setup-dev setup-cuda lock audit clean clean-venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: setup ## the whole pipeline on the digits of scikit-learn, into runs/demo (MODEL_DIR=...); continues where it stopped
	@$(BIN)/python -m neas_tf.train --experiment=neas_quickstart --model_dir=$(MODEL_DIR)

test: setup-dev ## ruff check and all tests (both are run even where the first complains)
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist=loadfile --no-loadscope-reorder || status=1; exit $$status

soak: setup-dev ## disturb runs in every way for up to two hours, into runs/soak; continues where it stopped
	@mkdir -p runs/soak
	@$(BIN)/python -m tests.soak --work=runs/soak --output=runs/soak/soak.json --markdown=runs/soak/soak.md

lint: setup-dev ## ruff check, the formatting and the types (all are run even where one complains)
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/ruff format --check . || status=1; $(BIN)/mypy || status=1; exit $$status

format: setup-dev ## write the formatting and what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: setup-dev ## the site of all pages and of the code's reference, into site/; a wrong link or name is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html is the first page."

wheel: setup-dev ## the wheel, into dist/
	@$(BIN)/python -m build --no-isolation --wheel

setup: $(VENV)/.package ## make .venv from requirements.lock, with the command neas in .venv/bin

setup-dev: $(VENV)/.stamp-dev $(VENV)/.package ## the same, with what the tests need

setup-cuda: setup ## add CUDA's libraries for NVIDIA GPUs (about 4 GB; the driver is the machine's own)
	@$(PIP) --no-compile -r requirements-cuda.lock

# .base: the Python that .venv was made from; .base.part: the making was interrupted.
$(VENV)/.base:
	@if [ -e $(VENV) ] && [ ! -e $(VENV)/.base.part ]; then \
	  echo "$(VENV) exists but was not made by this Makefile; move it away or remove it with 'make clean-venv'." >&2; exit 1; \
	fi; \
	python=""; \
	for candidate in $(or $(PYTHON),python3.12 python3.11 python3 python); do \
	  if "$$candidate" -c '$(SUPPORTED)' 2>/dev/null; then python=$$(command -v "$$candidate"); break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "No Python 3.11 or 3.12 found (looked for: $(or $(PYTHON),python3.12 python3.11 python3 python)); install one or name it with 'make PYTHON=/path/to/python3.11 ...'." >&2; exit 1; \
	fi; \
	if "$$python" -c 'import ensurepip' 2>/dev/null; then options=""; \
	elif "$$python" -m pip --python "$$python" --version >/dev/null 2>&1; then options=--without-pip; \
	else echo "$$python has neither ensurepip nor pip 22.3 or newer; install the package python3-venv (or python3-pip) and try again." >&2; exit 1; fi; \
	echo "Making $(VENV) with $$("$$python" --version) ($$python)"; \
	rm -rf $(VENV) && mkdir $(VENV) && touch $(VENV)/.base.part && \
	"$$python" -m venv $$options $(VENV) && echo "$$python" > $@ && rm $(VENV)/.base.part

# setuptools, its scm (with packaging) and wheel first: they build the few packages that have no wheels, so that no
# unlocked build tools are fetched.
$(VENV)/.stamp: requirements.lock | $(VENV)/.base
	@$(BIN)/python -c '$(SUPPORTED)' || { echo "$(VENV) is not of Python 3.11 or 3.12; remove it with 'make clean-venv' and try again." >&2; exit 1; }
	@echo "Installing requirements.lock (about 3 GB; a minute or two)"
	@awk '/^[^ ]/ { keep = /^(setuptools|setuptools-scm|packaging|wheel)==/ } keep' requirements.lock > $(VENV)/build.lock
	@$(PIP) -r $(VENV)/build.lock
	@$(PIP) --no-compile --no-build-isolation -r requirements.lock
	@touch $@

$(VENV)/.stamp-dev: requirements-dev.lock $(VENV)/.stamp
	@echo "Installing requirements-dev.lock"
	@$(PIP) -r requirements-dev.lock
	@touch $@

# In editable form: the commands run from any folder, and a change of the code needs no further installation.
$(VENV)/.package: pyproject.toml setup.py $(VENV)/.stamp
	@PYTHONWARNINGS=ignore $(PIP) --no-build-isolation --editable .
	@touch $@

LOCK = $(VENV)/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

lock: setup ## write the locks again from requirements*.in (minutes; a quarter of an hour for new versions of CUDA)
	@$$(cat $(VENV)/.base) -m venv $(VENV)/lock && $(VENV)/lock/bin/python -m pip install --quiet pip-tools==7.6.2
	@$(LOCK) --output-file=requirements.lock requirements.in
	@$(LOCK) --output-file=requirements-dev.lock requirements-dev.in
	@$(LOCK) --output-file=requirements-cuda.lock requirements-cuda.in

audit: setup-dev ## look up the locked packages in a database of known vulnerabilities; fails where one is found, or none is reached
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner=off -r requirements.lock -r requirements-dev.lock -r requirements-cuda.lock \
	  > $(VENV)/audit.txt 2> $(VENV)/audit.log; status=$$?; cat $(VENV)/audit.txt; \
	if [ $$status = 0 ]; then echo "audit: no known vulnerability in the locked packages."; \
	elif [ -s $(VENV)/audit.txt ]; then echo "audit: known vulnerabilities, see above." >&2; \
	else echo "audit: nothing was checked: no database knew the packages or answered; $(VENV)/audit.log has pip-audit's words." >&2; fi; \
	exit $$status

clean: ## remove caches and Bazel's links; .venv and runs stay
	@rm -rf .pytest_cache .ruff_cache .hypothesis build site ./*.egg-info bazel-*
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-venv: ## remove .venv
	@rm -rf $(VENV)
