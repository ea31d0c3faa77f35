"""What /ready tells of a server of several processes."""

from __future__ import annotations

import json
from collections.abc import Iterable

from aligner_svc.health.findings import Finding, Severity, listed


def readiness_of_all(ready: bool, up: int, count: int, answers: Iterable[tuple[int, list[dict[str, str]]]]) -> str:
    """The JSON of health.readiness, with one more finding; what all processes find is told once.

    `up` of `count` processes serve. `answers`: findings by the number of the process.
    """
    severity = Severity.OK if up == count else Severity.WARN if ready else Severity.FAIL
    hint = "" if up == count else "the server starts new ones by itself; if that fails, the log says why"
    found = listed([Finding("processes", severity, f"{up} of {count} processes serve", hint)])
    told: dict[str, tuple[dict[str, str], list[int]]] = {}
    for number, findings in answers:
        for finding in findings:
            told.setdefault(json.dumps(finding), (finding, []))[1].append(number)
    for finding, numbers in told.values():
        where = "" if len(numbers) == count else f"process {', '.join(map(str, sorted(numbers)))}: "
        found.append(finding | {"said": where + finding["said"]})
    return json.dumps({"ready": ready, "findings": found}, indent=2, ensure_ascii=False) + "\n"
