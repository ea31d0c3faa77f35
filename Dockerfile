# The core service: English on the CPU, without torch.
#
#   docker build -t aligner-svc .
#   docker run --rm --network host --read-only --tmpfs /tmp aligner-svc
#
# --network host is needed for that: the dev profile listens on loopback only, so a published port would reach nothing.
# Behind a port it wants the prod profile, with TLS and authentication: docs/security.md.

FROM python:3.11-slim AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements/ requirements/
COPY tools/install.sh tools/install.sh
COPY client/pyproject.toml client/README.md LICENSE client/
# The packages' places without their code: this layer stays cached while the code changes.
# .venv points at /app, so the next stage keeps the path.
RUN mkdir aligner_svc interceptors client/aligner_client && touch aligner_svc/__init__.py interceptors/__init__.py client/aligner_client/__init__.py \
    && make core PYTHON=/usr/local/bin/python3.11 \
    && .venv/bin/python -m pip uninstall --quiet --yes hatchling packaging pathspec pluggy tomlkit trove-classifiers setuptools wheel pip

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin aligner
WORKDIR /app
COPY --from=build /app/.venv/ .venv/
COPY aligner_svc/ aligner_svc/
COPY interceptors/ interceptors/
COPY client/aligner_client/ client/aligner_client/
COPY LICENSE NOTICE deploy/healthcheck.py ./
RUN python -m compileall -q aligner_svc interceptors client
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "healthcheck.py"]
ENTRYPOINT ["aligner"]
CMD ["serve"]
