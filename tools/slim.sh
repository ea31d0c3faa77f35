#!/usr/bin/env bash
# Remove from an image's .venv what a running service does not use: about 130 MB of 450. Data of a package goes by name, and a
# name that is not there any more is an error: a new version may have moved it, or use it. Needs binutils.
set -euo pipefail
cd "$(dirname "$0")/.."

# What installed the rest, itself last.
locked() { sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' "requirements/$1.lock"; }
comm -23 <(locked build | sort) <(locked "${1:-core}" | sort) | grep -v '^pip$' | xargs .venv/bin/python -m pip uninstall --quiet --yes
.venv/bin/python -m pip uninstall --quiet --yes pip

cd .venv/lib/python3.11/site-packages
# numpy's tests, but for what numpy.testing imports, which scipy imports, and so qwen-asr.
find numpy -path '*/tests/*' -type f -not -path numpy/_core/tests/_natype.py -delete
rm pocketsphinx/model/en-us/en-us.lm.bin       # 27 MB, a language model for recognising; aligning needs none
rm pocketsphinx/model/en-us/en-us-phone.lm.bin # the same of phonemes
rm hama/assets/p2g.hama                        # 15 MB, phonemes to letters
find hama/_libs -mindepth 1 -maxdepth 1 -type d -not -name "linux-$(uname -m)" -exec rm -r {} +

# Symbols for debuggers, 45 MB. Not of the shared libraries in *.libs, which auditwheel has patched.
find . -name '*.so' -type f -not -path './*.libs/*' -not -path './torch/*' -not -path './nvidia/*' -exec strip --strip-debug {} +
../../../bin/python -c 'import asyncpg, av, cryptography.hazmat.bindings._rust, greenlet, grpc, hama, numpy.testing, pocketsphinx, sqlalchemy'
[ "${1:-core}" != qwen ] || ../../../bin/python -c 'import nagisa, qwen_asr'
