#!/usr/bin/env bash
# Write requirements/*.lock from pyproject.toml. Pins already there are kept; `--upgrade` renews them.
#
# all.lock holds every package but torch (see install.sh) and shares core.lock's versions, so that
# going from the core to everything changes no installed version.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
shift

[ -x .uv/bin/uv ] || "$python" -m venv .uv
.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

compile() {
  local name=$1
  shift
  # --default-index: an index set in someone's environment must not decide what is locked.
  .uv/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate \
    --no-emit-index-url --no-emit-find-links --no-emit-package aligner-client --default-index https://pypi.org/simple \
    --custom-compile-command "make lock" --output-file "requirements/$name.lock" "$@" >/dev/null
  echo "requirements/$name.lock: $(grep -c '==' "requirements/$name.lock") packages"
}

compile core --universal "$@" pyproject.toml
# For one platform: what Qwen needs has wheels for few, and a resolution for all of them does not come about. The hashes are
# those of every platform's files all the same.
compile all --python-platform x86_64-manylinux_2_28 "$@" --extra test --extra bench --extra qwen --extra ray --extra japanese --constraint requirements/core.lock \
  --excludes requirements/no-cuda.txt --no-emit-package torch pyproject.toml
# What an image with the engine needs: all.lock has the tests' tools too.
compile qwen --python-platform x86_64-manylinux_2_28 "$@" --extra qwen --constraint requirements/core.lock \
  --constraint requirements/all.lock --excludes requirements/no-cuda.txt --no-emit-package torch pyproject.toml
compile build --universal "$@" --constraint requirements/all.lock requirements/build.in
compile docs --universal "$@" --constraint requirements/all.lock requirements/docs.in
