#!/usr/bin/env bash
# Remove from an image's .venv what a running service does not use: about 80 MB of 400. Data of a package goes by name, and a
# name that is not there any more is an error: a new version may have moved it, or use it.
set -euo pipefail
cd "$(dirname "$0")/.."

# What installed them first, by themselves. Not packaging: transformers uses it.
.venv/bin/python -m pip uninstall --quiet --yes hatchling pathspec pluggy tomlkit trove-classifiers setuptools wheel pip

packages=$PWD/.venv/lib/python3.11/site-packages
cd "$packages"
find . -type d \( -name tests -o -name test \) -path './numpy/*' -prune -exec rm -r {} +
rm pocketsphinx/model/en-us/en-us.lm.bin       # 27 MB, a language model for recognising; aligning needs none
rm pocketsphinx/model/en-us/en-us-phone.lm.bin # the same of phonemes
rm hama/assets/p2g.hama                        # 15 MB, phonemes to letters
find hama/_libs -mindepth 1 -maxdepth 1 -type d -not -name "linux-$(uname -m)" -exec rm -r {} +
