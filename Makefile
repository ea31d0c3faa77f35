# The commands for developers; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
BUF := tools/buf/node_modules/.bin/buf
# A Python 3.11; default: the first of python3.11 and python3 that is one.
export PYTHON ?=
# A git worktree may share another checkout's .venv, where the client's package is that checkout's.
export PYTHONPATH := $(CURDIR):$(CURDIR)/client

.PHONY: help setup core grpcurl demo run test lint lint-python lint-types lint-imports lint-shape lint-protos docs docs-tables docs-rooms docs-check docs-tables-check docs-rooms-check protos protos-check protos-baseline client client-check bench bench-accuracy bench-chain bench-overload bench-fairness bench-fleet bench-long-jobs bench-processes bench-ray bench-scan bench-qwen bench-gpu bench-gpu-bundle bench-vs lock clean bench-live

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- installing: tools/install.sh; the files below mark when it last finished

$(VENV)/.core: requirements/build.lock requirements/core.lock pyproject.toml client/pyproject.toml tools/install.sh
	@tools/install.sh core

$(VENV)/.all: requirements/build.lock requirements/core.lock requirements/all.lock pyproject.toml client/pyproject.toml tools/install.sh
	@tools/install.sh all

$(VENV)/.grpcurl: $(VENV)/.core
	@tools/install.sh grpcurl

grpcurl: $(VENV)/.grpcurl ## the core, and grpcurl to call it by hand (demo and run install both themselves)

setup: $(VENV)/.all ## .venv with everything: extras, torch, the tests' tools

core: $(VENV)/.core ## .venv with what the service needs, without torch

# ---- using it

demo: $(VENV)/.grpcurl ## start a server, align the sample recording through it, print the words
	@$(PY) samples/demo.py

run: $(VENV)/.grpcurl ## serve on 127.0.0.1:50051 until Ctrl-C; other flags: make run ARGS="--listen 127.0.0.1:6000"
	@$(PY) samples/demo.py --next $(ARGS)
	@exec $(VENV)/bin/aligner serve --profile dev $(ARGS)

# ---- checking it

# One more than the cores of a small machine: a third of the time tests wait for what they started.
PYTEST_WORKERS ?= 3
test: $(VENV)/.all test-services ## the tests; a part of them: make test PYTEST_ARGS="tests/aligner_svc/text"
	$(PY) -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

COMPILERS := golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go protoc-gen-go-grpc protobuf-compiler \
  default-jdk-headless protobuf-compiler-grpc-java-plugin libgrpc-java libprotobuf-java libnetty-java libgoogle-gson-java

RUNS ?= 100000
fuzz: $(VENV)/.all ## damaged files, texts, messages and HTTP/2 frames, RUNS of each: no crash, no hang, no internal error
	@for target in audio text messages http2; do $(PY) -m tests.fuzz.fuzz_$$target -runs=$(RUNS) || exit 1; done

attack: $(VENV)/.all test-services ## attacks on a real prod server, a table of what came through: ARGS=--short or ARGS="--only tokens"
	$(PY) -m tests.attack $(ARGS)

soak: $(VENV)/.all test-services ## 32 clients of every kind for 10 minutes: unexpected errors, and what grows; ARGS="--seconds 60"
	$(PY) -m tests.soak $(ARGS)

chaos: $(VENV)/.all test-services ## parts of a running prod server killed, frozen and changed: calls lost, recovery; ARGS="--only clamd"
	$(PY) -m tests.chaos $(ARGS)

check-image: $(VENV)/.grpcurl ## build the container from nothing, and use it as a prod server with TLS (as root, on Debian; 8 minutes)
	@tools/check_image.sh

test-cluster: $(VENV)/.all ## the engine on a Ray cluster of two nodes: the same words, losses, the head lost, streams, Qwen, roll-out (4 minutes; not part of make test)
	$(PY) -m pytest -n 0 -m cluster tests/aligner_svc/engines/ray_serve $(PYTEST_ARGS)

test-stubs: $(VENV)/.all ## stubs in Go, Java and TypeScript: generated, compiled, Go's called with (600 MB of Debian's packages; not part of make test)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && \
	  apt-get install -qq --yes --no-install-recommends $(COMPILERS) >/dev/null; else echo "needs Debian's $(COMPILERS)"; fi
	$(PY) -m pytest -n 0 -m stubs tests/client/test_stubs.py $(PYTEST_ARGS)

.PHONY: fuzz attack soak chaos test-cluster test-stubs check-image test-services
test-services:
	@tools/test_services.sh

lint: lint-python lint-types lint-imports lint-shape protos-check docs-check lint-protos ## ruff, mypy, imports between rooms, sizes, generated stubs and tables, buf

lint-python: $(VENV)/.all
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

lint-types: $(VENV)/.all
	$(PY) -m mypy --strict aligner_svc interceptors
	$(PY) -m mypy --strict --python-version 3.10 client/aligner_client

# The contracts are in pyproject.toml; docs/architecture.md explains them.
lint-imports: $(VENV)/.all
	$(VENV)/bin/lint-imports --no-logo --no-cache

lint-shape: $(VENV)/.core
	$(PY) tools/shape.py

# buf comes from npm. Without npm this check is skipped with a message; in CI it fails.
lint-protos:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory buf-checks; \
	elif [ "$$CI" = true ]; then echo "lint-protos: npm is needed for buf" >&2; exit 1; \
	else echo "lint-protos: NOT CHECKED: buf needs node and npm, which are not installed" >&2; fi

.PHONY: buf-checks
buf-checks: $(BUF)
	$(BUF) lint
	$(BUF) breaking --against protos/baseline.txtpb

$(BUF): tools/buf/package-lock.json
	cd tools/buf && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# ---- generated files; protoc finds its mypy plugins on PATH

protos: $(VENV)/.all ## generate the stubs in client/aligner_client/api from protos/
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) tools/gen_protos.py
	$(PY) tools/protoset.py

protos-check: $(VENV)/.all ## do the stubs match protos/?
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) tools/gen_protos.py --check
	$(PY) tools/protoset.py --check

# The baseline of compatibility: `make lint` refuses a proto that breaks it, and so does this.
protos-baseline: $(VENV)/.all $(BUF) ## after adding to the API: take protos/ as the new baseline of `buf breaking`
	@[ ! -e protos/baseline.txtpb ] || $(BUF) breaking --against protos/baseline.txtpb
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) tools/gen_protos.py --baseline protos/baseline.txtpb

docs: docs-tables docs-rooms ## write docs/settings.md, the API references, docs/openapi.json, the Grafana dashboard and the diagram of the rooms from the code

docs-tables: $(VENV)/.core
	$(PY) tools/settings_table.py
	$(PY) tools/dashboard.py

# The imports are read by grimp, which comes with import-linter, the proto by grpcio-tools.
docs-rooms: $(VENV)/.all
	$(PY) tools/architecture.py
	$(PY) tools/api_reference.py
	$(PY) tools/openapi.py

docs-check: docs-tables-check docs-rooms-check

docs-tables-check: $(VENV)/.core
	$(PY) tools/settings_table.py --check
	$(PY) tools/error_reasons.py
	$(PY) tools/dashboard.py --check

docs-rooms-check: $(VENV)/.all
	$(PY) tools/architecture.py --check
	$(PY) tools/api_reference.py --check
	$(PY) tools/openapi.py --check

$(VENV)/.docs: requirements/docs.lock $(VENV)/.core
	@tools/install.sh docs

docs-site: $(VENV)/.docs ## docs/ as a site in build/site; fails for links that lead nowhere
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict
	@echo "build/site/index.html"

.PHONY: docs-site

lock: ## write requirements/*.lock from pyproject.toml; newer versions: make lock ARGS=--upgrade
	@tools/lock.sh "$(or $(PYTHON),python3.11)" $(ARGS)

# ---- the client's package

client: $(VENV)/.core ## dist/aligner_client-*.whl, for callers' own environments
	@$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist ./client
	@ls dist/aligner_client-*.whl

# Each of PYTHONS, with the oldest packages that the client allows and the newest; 15 s a Python, packages from the index.
PYTHONS ?= $(wildcard $(foreach minor,10 11 12 13 14,/usr/bin/python3.$(minor)))
client-check: $(VENV)/.all ## calls by the client's wheel in bare environments: PYTHONS="/usr/bin/python3.13 ..."
	CLIENT_PYTHONS="$(PYTHONS)" $(PY) -m pytest -n 0 -q tests/client/test_wheel.py

# ---- measuring

bench: $(VENV)/.core ## throughput and latency of a server on this machine
	$(PY) -m bench.speed $(ARGS)

bench-accuracy: $(VENV)/.core ## word boundaries against hand-marked recordings
	$(PY) -m bench.accuracy $(ARGS)

bench-chain: $(VENV)/.core ## cost of the guards per call, compared to bare grpc.aio
	$(PY) -m bench.chain $(ARGS)

bench-overload: $(VENV)/.core ## a server under 1 to 10 times its capacity, with the adaptive limit and without
	$(PY) -m bench.overload $(ARGS)

bench-fairness: $(VENV)/.core ## nine callers within their share beside one at fifty times its own
	$(PY) -m bench.fairness $(ARGS)

bench-fleet: $(VENV)/.core ## a simulation of 1,000 gateways and 10,000 GPUs: what waits, who is served, what is full first
	$(PY) -m bench.fleet $(ARGS)

bench-processes: $(VENV)/.core ## what a second process on the port brings, with an engine that costs nothing
	$(PY) -m bench.shared_port $(ARGS)

bench-long-jobs: $(VENV)/.core ## what a short call takes beside 0, 1 and 3 long jobs
	$(PY) -m bench.long_jobs $(ARGS)

bench-ray: $(VENV)/.all ## the engine on a Ray cluster of this machine: cost of the way, replicas, losses, scaling
	$(PY) -m bench.ray_cluster $(ARGS)

bench-live: $(VENV)/.core ## recordings sent as they are spoken: how late words come, how exact they are, what it costs
	$(PY) -m bench.live $(ARGS)

bench-vs: $(VENV)/.all ## the service beside a FastAPI app with the same engine: load, memory, overload, hostile files; a table and a plot
	$(PY) -m bench.vs $(ARGS)

bench-scan: $(VENV)/.all ## what the virus scan adds to a stream
	$(PY) -m bench.scan

bench-qwen: $(VENV)/.all ## Qwen3-ForcedAligner on this machine's CPU, compared to qwen-asr and the arithmetic bound
	$(PY) -m bench.qwen $(ARGS)

bench-gpu: $(VENV)/.all ## the same on a CUDA GPU: throughput, latency, memory
	$(PY) -m bench.gpu $(ARGS)

bench-gpu-bundle: $(VENV)/.all ## bench-gpu as one archive for a GPU machine without network: dist/bench-gpu.tar.gz
	@mkdir -p dist
	@tools/gpu_bundle.sh dist/bench-gpu.tar.gz

clean: ## remove .venv, caches and everything else that make created
	rm -rf $(VENV) .venv.lock .uv tools/buf/node_modules tests/*/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
