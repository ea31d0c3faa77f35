"""Freed memory goes back to the system, unless it is kept for tensors."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
from aligner_svc import heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

if "keep" in sys.argv:
    heap.keep_memory()
else:
    heap.share_heaps()
before = resident()
blocks = [b"x" * 16_000 for _ in range(4000)]
last = blocks.pop()
del blocks
heap.return_unused()
print(resident() - before)
"""


@pytest.mark.parametrize(("keep", "pages"), [((), range(1_500)), (("keep",), range(15_000, 30_000))], ids=["", "kept"])
def test_free_pages_below_a_block_in_use_are_returned(keep: tuple[str, ...], pages: range) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *keep], capture_output=True, text=True, check=True)
    assert int(done.stdout) in pages
