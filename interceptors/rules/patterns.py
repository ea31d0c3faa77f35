"""Names of principals with a * in them, as the files that speak of principals write them."""

from __future__ import annotations

import re
from collections.abc import Callable

PROOFS = ("mtls:", "jwt:", "key:")
"""What names of principals begin with (see interceptors.calls.principal)."""


def pattern_test(pattern: str) -> Callable[[str], object]:
    """At the end a * is all the rest, elsewhere one part: "mtls:*.example.org" has no place for a.b.example.org."""
    head, last = (pattern[:-1], ".+") if pattern.endswith("*") else (pattern, "")
    if "*" not in head:  # most are like this, and compiling an expression takes 0.1 ms
        return lambda name: name.startswith(head) and len(name) > len(head)
    return re.compile(r"[^/.:#]+".join(map(re.escape, head.split("*"))) + last, re.DOTALL).fullmatch


def pattern_fault(name: str) -> tuple[str, str] | None:
    """What is wrong with a name, with a * or without, and what to do; None: nothing. A bare * is the caller's to judge."""
    if not name.startswith(PROOFS) or name in PROOFS:
        return (
            "a principal's name says how it was proven and who it is",
            "begin with mtls:, jwt: or key:, as the audit log has it",
        )
    # "spiffe://example.org*" would let in example.org.attacker.net; a part of a name is no boundary anybody checks.
    if re.search(r"[^/.:#]\*|\*[^/.:#]|\*\*", name):
        return (
            "a * stands for a whole part of a name, between two of / . : #",
            "put a separator next to it: spiffe://example.org/*",
        )
    return None
