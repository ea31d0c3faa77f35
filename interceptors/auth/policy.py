"""Who may call what: methods need scopes, principals have them, and what is not listed is denied."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from interceptors.calls.principal import Principal
from interceptors.rules.patterns import pattern_fault, pattern_test
from interceptors.rules.toml_text import PolicyError, PolicyText

__all__ = ["SCOPES", "Decision", "Policy", "PolicyError"]

SCOPES = frozenset({"align", "admin"})
"""The scopes a policy may speak of, unless it is parsed with others."""

_Rules = Mapping[str, frozenset[str]]

_DECISIONS = 4096
"""Remembered decisions: some bytes each, and a caller that comes back is the rule."""
_SUMMARY = 400
"""Characters of a summary of changes: it stands in one line of a log."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call may be made, and if not, why."""

    allowed: bool
    check: str = ""
    """"scope_missing" or "method_not_listed"."""
    needed: frozenset[str] = frozenset()
    """Any one of these scopes would do; with "scope_missing", none: nobody may call the method."""


_ALLOWED = Decision(True)
_NOT_LISTED = Decision(False, "method_not_listed")


class Policy:
    """One version of the policy. Never changes: a new one takes its place, and the decisions remembered go with it."""

    def __init__(
        self, methods: _Rules, principals: _Rules, renamed: Mapping[str, str], scopes: frozenset[str], text: str
    ) -> None:
        """Rules that have been checked; see `parse`."""
        self._methods, self._principals, self._renamed, self._scopes = methods, principals, renamed, scopes
        self._patterns = [(pattern_test(name), granted) for name, granted in principals.items() if "*" in name]
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
        """How `sha256sum` of the file begins."""
        # By what decides and nothing else, so that a token's expiry does not make every renewal a stranger.
        self._decide: Callable[[str, str, frozenset[str]], Decision] = lru_cache(_DECISIONS)(self._decided)

    @classmethod
    def parse(cls, text: str, source: str, served: Collection[str], *, scopes: Collection[str] = SCOPES) -> Policy:
        """From TOML. `source` names it in errors, `served` are the methods there are, as "/package.Service/Method".

        Raises PolicyError for whatever would not do what its author thinks: unknown methods, scopes and tables among it.
        """
        found = PolicyText.parse(text, source)
        known = frozenset(scopes)
        methods = {name: found.scopes("methods", name, known) for name in found.table("methods", needed=True)}
        for name in methods:
            _check_method(found, name, served)
        principals = {name: found.scopes("principals", name, known) for name in found.table("principals")}
        for name, granted in principals.items():
            _check_principal(found, name, granted)
        return cls(methods, principals, dict(_renamed(found, known)), known, text)

    def allows(self, method: str, principal: Principal) -> Decision:
        """Whether `principal` may call `method`, "/package.Service/Method"."""
        return self._decide(method, principal.name, principal.scopes)

    def changes_since(self, before: Policy) -> str:
        """What is other than in `before`, for a log line: "methods: +/a.B/C (admin); principals: -key:3fb1c9 (align)"."""
        parts = []
        for table, new, old in (
            ("methods", self._methods, before._methods),
            ("principals", self._principals, before._principals),
            ("scopes", _as_rules(self._renamed), _as_rules(before._renamed)),
        ):
            if differences := list(_differences(new, old)):
                parts.append(f"{table}: {', '.join(differences)}")
        summary = "; ".join(parts) or "no rule has changed"
        return summary if len(summary) <= _SUMMARY else f"{summary[: _SUMMARY - 4]} ..."

    def _decided(self, method: str, name: str, scopes: frozenset[str]) -> Decision:
        needed = self._methods.get(method)
        if needed is None:
            needed = self._methods.get(f"{method.rpartition('/')[0]}/*")
        if needed is None:
            return _NOT_LISTED
        return Decision(False, "scope_missing", needed) if needed.isdisjoint(self._granted(name, scopes)) else _ALLOWED

    def _granted(self, name: str, scopes: frozenset[str]) -> set[str]:
        """Everything adds up: what the credential says, and every rule that fits the name."""
        granted = {self._renamed.get(scope, scope) for scope in scopes}
        granted |= self._principals.get(name, frozenset())
        for fits, more in self._patterns:
            if fits(name):
                granted |= more
        return granted


def _check_method(found: PolicyText, name: str, served: Collection[str]) -> None:
    service, _, last = name.rpartition("/")
    services = {f"{method.rpartition('/')[0]}/*" for method in served}
    if name in served or (last == "*" and name in services):
        return
    if "*" in name and (last != "*" or "*" in service or not service):
        raise found.error("methods", name, what="a * stands for all methods of one service and nothing else", do=_SHAPE)
    near = difflib.get_close_matches(name, sorted({*served, *services}), n=1, cutoff=0.5)
    what = "this server has no such service" if last == "*" else "this server has no such method"
    raise found.error("methods", name, what=what, do=f'did you mean "{near[0]}"?' if near else _SHAPE)


_SHAPE = 'write "/package.Service/Method" or "/package.Service/*"'


def _check_principal(found: PolicyText, name: str, granted: frozenset[str]) -> None:
    if name == "*":
        what = "a bare * would give its scopes to whoever has any credential at all"
        raise found.error("principals", name, what=what, do="write mtls:*, jwt:* or key:*, as many of them as are meant")
    fault = pattern_fault(name)
    if fault is not None:
        raise found.error("principals", name, what=fault[0], do=fault[1])
    if not granted:
        raise found.error("principals", name, what="an empty list grants nothing", do="name a scope, or remove the line")


def _renamed(found: PolicyText, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    for theirs, ours in found.table("scopes").items():
        if theirs in known:
            raise found.error("scopes", theirs, what="this is one of the server's own scopes", do="remove the line")
        if not isinstance(ours, str):
            raise found.error("scopes", theirs, what="the name of one scope is needed", do='write it as "align"')
        found.check_known("scopes", theirs, ours, known)
        yield theirs, ours


def _as_rules(renamed: Mapping[str, str]) -> _Rules:
    return {theirs: frozenset({ours}) for theirs, ours in renamed.items()}


def _differences(new: _Rules, old: _Rules) -> Iterator[str]:
    for name in sorted({*new, *old}):
        before, after = old.get(name), new.get(name)
        if before is None and after is not None:
            yield f"+{name} ({_listed(after)})"
        elif after is None and before is not None:
            yield f"-{name} ({_listed(before)})"
        elif before is not None and after is not None and before != after:
            yield f"{name} ({_listed(before)} -> {_listed(after)})"


def _listed(scopes: frozenset[str]) -> str:
    return " ".join(sorted(scopes)) or "nobody"
