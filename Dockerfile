# The service as a container: English on the CPU (the default target), or Qwen on a GPU. docs/deploy.md says how to run it.
#
#   docker build -t aligner-svc .
#   docker build -t aligner-svc:cuda --target cuda .
#
# `make check-image` builds the first and calls a server in it.

# 3.11 and no later Python: docs/engine.md#python. The digest is that of the index of all platforms; for a newer one:
# docker buildx imagetools inspect python:3.11-slim-bookworm
ARG BASE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
# .venv points at /app, so the last stages keep the path.
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY requirements/ requirements/
COPY tools/install.sh tools/slim.sh tools/
COPY client/pyproject.toml client/README.md LICENSE client/
# The packages' places without their code: this layer stays cached while the code changes.
RUN mkdir aligner_svc interceptors client/aligner_client \
    && touch aligner_svc/__init__.py interceptors/__init__.py client/aligner_client/__init__.py \
    && PYTHON=/usr/local/bin/python3.11 tools/install.sh core

FROM build AS build-core
RUN tools/slim.sh

FROM build AS build-cuda
# TORCH=cpu makes a much smaller image, for Qwen on a CPU.
ARG TORCH=cuda
RUN TORCH=${TORCH} tools/install.sh qwen && tools/slim.sh qwen

FROM ${BASE} AS code
WORKDIR /app
COPY aligner_svc/ aligner_svc/
COPY interceptors/ interceptors/
COPY client/aligner_client/ client/aligner_client/
COPY LICENSE NOTICE deploy/healthcheck.py ./
# Not as variables: those would have precedence over a settings file of the user.
COPY deploy/container.toml aligner.toml
RUN /usr/local/bin/python3.11 -m compileall -q --invalidation-mode unchecked-hash .

FROM ${BASE} AS service
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="aligner-svc" \
      org.opencontainers.image.description="gRPC service that tells when each word of a transcript was spoken in a recording" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.16-slim-bookworm"
WORKDIR /app
# What outlives a container: the keys' database, its pepper, the audit log. A volume takes this folder's owner.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin aligner \
    && install --directory --owner=aligner --group=aligner --mode=0700 /var/lib/aligner
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
VOLUME /var/lib/aligner
# gRPC, and metrics with readiness.
EXPOSE 50051 9464
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 10001:10001
STOPSIGNAL SIGTERM
# It asks the metrics port, over loopback and without TLS, whatever the gRPC port demands of its clients.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-IS", "/app/healthcheck.py"]
ENTRYPOINT ["aligner"]
CMD ["serve"]

FROM code AS code-cuda
RUN printf '\n[engine]\nname = "qwen"\n' >>aligner.toml

FROM service AS cuda
COPY --from=build-cuda /app/.venv/ .venv/
COPY --from=code-cuda /app/ ./
# The checkpoint is downloaded to the volume at the first start, unless ALIGNER_QWEN__MODEL is a folder. NVIDIA_*: the container
# runtime passes the GPUs and their driver in.
ENV HF_HOME=/var/lib/aligner/huggingface NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The last target is the default.
FROM service AS core
COPY --from=build-core /app/.venv/ .venv/
COPY --from=code /app/ ./
