#!/usr/bin/env bash
# gpu_bundle.sh FILE.tar.gz: pack `make bench-gpu` for a machine that has PyTorch, a CUDA GPU and no network.
#
# There:  tar xzf FILE.tar.gz && bench-gpu/run.sh [flags of `python -m bench.gpu`]
#
# Wheels are for one version of Python and this machine's platform. Take the GPU machine's version:
# PYTHON=python3.12 tools/gpu_bundle.sh FILE.tar.gz. torch and what it brings along are that machine's own.
# WITHOUT="numpy scipy" leaves out what that machine has too, where the archive must be small.
set -euo pipefail

file=$(realpath -m "${1:?usage: tools/gpu_bundle.sh FILE.tar.gz}")
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

# What the bench imports: of qwen-asr's own needs neither its demo (gradio, flask) nor its file loading (av, numba).
needed=(
  accelerate annotated-types certifi cffi charset-normalizer dynet38 huggingface-hub idna lazy-loader librosa
  markdown-it-py mdurl nagisa numpy packaging pillow psutil pycparser pydantic pydantic-core pydantic-settings pygments
  python-dotenv pytz pyyaml qwen-asr regex requests rich safetensors six soundfile soxr tokenizers tqdm transformers
  typing-extensions typing-inspection urllib3
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/bench-gpu
mkdir -p "$bundle/wheels" "$bundle/pip" "$bundle/project"

# A package of a lock with its hashes, whatever version of Python it was locked for.
locked() {
  awk -v wanted=" ${*:2} " '
    /^[a-z]/ { name = $1; sub(/==.*/, "", name); keep = index(wanted, " " name " ") }
    keep { sub(/ ;.*/, " \\"); print }' "requirements/$1.lock"
}

pip() { PIP_DISABLE_PIP_VERSION_CHECK=1 "$python" -m pip "$@"; }

for name in ${WITHOUT:-}; do
  for at in "${!needed[@]}"; do [ "${needed[at]}" != "$name" ] || unset "needed[at]"; done
done
locked all "${needed[@]}" >"$work/needed.txt"
for name in "${needed[@]}"; do
  grep -q "^$name==" "$work/needed.txt" || { echo "gpu_bundle: $name is not in requirements/all.lock" >&2 && exit 1; }
done
locked build pip >"$work/pip.txt"
echo "==> wheels for $("$python" -V): ${#needed[@]} packages"
pip wheel -qq --no-deps --require-hashes --wheel-dir "$bundle/wheels" --requirement "$work/needed.txt"
pip wheel -qq --no-deps --require-hashes --wheel-dir "$bundle/pip" --requirement "$work/pip.txt"

cp -R aligner_svc client/aligner_client bench "$bundle/project/"
mkdir -p "$bundle/project/tests/kit"
cp tests/__init__.py "$bundle/project/tests/"
cp tests/kit/__init__.py tests/kit/checkpoint.py tests/kit/qwen_reference.py "$bundle/project/tests/kit/"
find "$bundle/project" -name __pycache__ -prune -exec rm -rf {} +
"$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' >"$bundle/python-version"

cat >"$bundle/run.sh" <<'RUN'
#!/usr/bin/env bash
# run.sh [flags of bench.gpu; --help lists them]: everything it needs is beside it; nothing is fetched.
# PYTHON: the Python that has PyTorch, python3 if not given.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() { printf 'run.sh: %s\n' "$*" >&2 && exit 1; }

python=${PYTHON:-python3}
wanted=$(<"$here/python-version")
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "$python does not run"
[ "$found" = "$wanted" ] || fail "$python is Python $found, the wheels are for $wanted: set PYTHON, or pack them for $found"
site_of_torch='from importlib.util import find_spec; from pathlib import Path; print(Path(find_spec("torch").origin).parents[1])'
torch=$("$python" -c "$site_of_torch" 2>/dev/null) || fail "$python has no PyTorch: set PYTHON to the one that has"

if [ ! -e "$here/venv/.ready" ]; then
  rm -rf "$here/venv"
  "$python" -m venv --system-site-packages --without-pip "$here/venv" # pip is carried: Debian's Python has no ensurepip
  packages=$("$here/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$torch" >"$packages/torch-of-this-machine.pth" # where $python is of a venv itself, its packages are no system's
  "$here/venv/bin/python" "$(echo "$here"/pip/pip-*.whl)/pip" --isolated --disable-pip-version-check \
    install --quiet --no-index --no-deps --ignore-installed --no-warn-script-location "$here"/wheels/*.whl
  touch "$here/venv/.ready"
fi
export HF_HUB_OFFLINE=1 PYTHONPATH="$here/project" PYTHONUNBUFFERED=1
exec "$here/venv/bin/python" -m bench.gpu "$@"
RUN
chmod +x "$bundle/run.sh"

tar -C "$work" -czf "$file" bench-gpu
echo "==> $file: $(du -h "$file" | cut -f1). There: tar xzf ${file##*/} && bench-gpu/run.sh"
