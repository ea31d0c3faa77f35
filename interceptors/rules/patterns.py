"""Patterns for names of principals, with a * in them, as files of rules write them."""

from __future__ import annotations

import re
from collections.abc import Callable

PROOFS = ("mtls:", "jwt:", "key:")
"""What names of principals begin with (see interceptors.calls.principal)."""


def pattern_test(pattern: str) -> Callable[[str], object]:
    """A * at the end is all the rest of a name, elsewhere one part: a.b.example.org does not fit "mtls:*.example.org"."""
    head, last = (pattern[:-1], ".+") if pattern.endswith("*") else (pattern, "")
    if "*" not in head:  # nearly all patterns, and compiling an expression takes 0.1 ms
        return lambda name: name.startswith(head) and len(name) > len(head)
    return re.compile(r"[^/.:#]+".join(map(re.escape, head.split("*"))) + last, re.DOTALL).fullmatch


def pattern_fault(name: str) -> tuple[str, str] | None:
    """What is wrong with a name or pattern, and what to do; None: nothing. A bare * is left to the caller."""
    if not name.startswith(PROOFS) or name in PROOFS:
        return (
            "a principal's name says how it was proven and who it is",
            "begin with mtls:, jwt: or key:, as in the audit log",
        )
    # "spiffe://example.org*" would let in example.org.attacker.net.
    if re.search(r"[^/.:#]\*|\*[^/.:#]|\*\*", name):
        return (
            "a * stands for a whole part of a name, between two of / . : #",
            "put a separator next to it: spiffe://example.org/*",
        )
    return None
