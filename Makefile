# Targets that need .venv install it first, once: demo what a run needs, the others the tools of development as well.
PYTHON ?= python3
WORKSPACE ?= runs/demo
PORT ?= 5000
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
# For example cpu: a torch without CUDA, from PyTorch's own index. Not set: the package of the default index.
TORCH_BACKEND ?=
INSTALL = $(VENV)/bin/uv pip install --python $(RUN) --compile-bytecode --constraint constraints.txt $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) --editable

.PHONY: demo test test-long test-fast lint docs ui install clean

demo: $(STAMP)
	$(RUN) -m jobs.pipeline demo --workspace $(WORKSPACE)

# Two processes (test-fast too): tests with Ray wait for its processes most of the time, and the others run beside them.
test: $(DEV_STAMP)
	$(RUN) -m pytest --numprocesses 2 --dist loadgroup

test-long: $(DEV_STAMP)
	SLAMS_LONG_TESTS=1 $(RUN) -m pytest -m long

test-fast: $(DEV_STAMP)
	$(RUN) -m pytest --numprocesses 2 --dist loadgroup -m "not ray and not slow"

lint: $(DEV_STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(RUN) -m pytest -q tests/test_architecture.py tests/test_words.py

docs: $(DEV_STAMP)
	$(RUN) docs/generate_settings.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --site-dir site

# The address is of the experiment with the last run: a workspace that was moved has several.
# Without this variable MLflow starts seven processes for evaluation jobs, which nothing here uses.
ui: $(STAMP)
	@test -f $(WORKSPACE)/mlflow.db || { echo "$(WORKSPACE) has no mlflow.db: name the workspace of a run, make ui WORKSPACE=runs/folder"; exit 1; }
	@id=$$($(RUN) -c 'import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute("select experiment_id from runs order by start_time desc limit 1").fetchone() or "0")' $(WORKSPACE)/mlflow.db) && \
	echo "open http://127.0.0.1:$(PORT)/#/experiments/$$id/runs?workflowType=machine_learning&viewStateShareKey=slams_ray  (Ctrl-C stops the server)"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(VENV)/bin/mlflow server --backend-store-uri sqlite:///$(abspath $(WORKSPACE))/mlflow.db --host 127.0.0.1 --port $(PORT) --workers 1

install: $(DEV_STAMP)

# Compiles bytecode and the CRF at installation. Otherwise every Ray worker spends 10 to 20 s compiling torch when it
# imports it, and the first ones that refine spend half a minute on the CRF.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "the venv module is needed: apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV): about 7 GB with the CUDA libraries of torch, in 2 to 4 minutes (a torch without them: make TORCH_BACKEND=cpu)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt uv
	$(INSTALL) '.[train]'
	$(RUN) -c 'from slams_ray.refinement.crf import mean_field; mean_field.compile_ahead()'
	$(RUN) -c 'from slams_ray.refinement.walk import propagation; propagation.compile_ahead()'
	touch $(STAMP)

$(DEV_STAMP): $(STAMP)
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || { echo "Python headers are needed to build pydensecrf2, which tests compare with: apt-get install python3-dev"; exit 1; }
	@command -v g++ >/dev/null || { echo "a C++ compiler is needed to build pydensecrf2, which tests compare with: apt-get install g++"; exit 1; }
	$(INSTALL) '.[dev]'
	touch $(DEV_STAMP)

clean:
	rm -rf runs
