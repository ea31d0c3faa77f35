"""Who may call what: methods need scopes, principals have them, and what is not listed is denied."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from interceptors.calls.principal import Principal
from interceptors.rules.changes import changed_rules, summary
from interceptors.rules.patterns import pattern_fault, pattern_test
from interceptors.rules.toml_text import TomlText, quoted

SCOPES = frozenset({"align", "admin"})
"""The scopes a policy may name, unless it is parsed with others."""

_Grants = Mapping[str, frozenset[str]]

_MAX_DECISIONS = 4096
"""Decisions kept in memory, some bytes each: most calls are by a caller that has called before."""
_TABLES = ("methods", "principals", "scopes")
_METHODS, _PRINCIPALS, _SCOPES = _TABLES
_SHAPE = 'write "/package.Service/Method" or "/package.Service/*"'


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call may be made, and if not, why."""

    allowed: bool
    check: str = ""
    """"scope_missing" or "method_not_listed"."""
    needed: frozenset[str] = frozenset()
    """Any one of these scopes is enough. Empty with "scope_missing": no scope grants access to the method."""


_ALLOWED = Decision(True)
_NOT_LISTED = Decision(False, "method_not_listed")


class Policy:
    """One version of the policy. Never changes: a new one takes its place, and the decisions remembered go with it."""

    def __init__(self, methods: _Grants, principals: _Grants, renamed: Mapping[str, str]) -> None:
        """Rules that have been checked; see `parse`. `renamed`: the server's scope by a token's own name for it."""
        self._methods, self._principals, self._renamed = methods, principals, renamed
        self._patterns = [(pattern_test(name), granted) for name, granted in principals.items() if "*" in name]
        # The key is what decides and nothing else: a renewed token, with another expiry, finds the decision again.
        self._decide: Callable[[str, str, frozenset[str]], Decision] = lru_cache(_MAX_DECISIONS)(self._decided)

    @classmethod
    def parse(cls, text: str, source: str, served: Collection[str], *, scopes: Collection[str] = SCOPES) -> Policy:
        """From TOML. `source` names it in errors, `served` are the server's methods as "/package.Service/Method".

        Raises RulesError for whatever would not do what its author thinks, such as an unknown method, scope or table.
        """
        found, known = TomlText.parse(text, source, _TABLES), sorted(scopes)
        if not found.table(_METHODS):
            raise found.error(_METHODS, what="[methods] is empty, which denies every call", do="list what may be called")
        methods = {name: _scope_list(found, _METHODS, name, known) for name in found.table(_METHODS)}
        for name in methods:
            _check_method(found, name, served)
        principals = {name: _scope_list(found, _PRINCIPALS, name, known) for name in found.table(_PRINCIPALS)}
        for name, granted in principals.items():
            _check_principal(found, name, granted)
        renamed = found.table(_SCOPES)
        for theirs, ours in renamed.items():
            _check_renamed(found, theirs, ours, known)
        return cls(methods, principals, renamed)

    def allows(self, method: str, principal: Principal) -> Decision:
        """Whether `principal` may call `method`, "/package.Service/Method"."""
        return self._decide(method, principal.name, principal.scopes)

    def changes_since(self, before: Policy) -> str:
        """For a log line: "methods: +/a.B/C (admin); principals: -key:3fb1c9 (align)"."""
        changes = (
            *changed_rules(_METHODS, _listed(self._methods), _listed(before._methods)),
            *changed_rules(_PRINCIPALS, _listed(self._principals), _listed(before._principals)),
            *changed_rules(_SCOPES, self._renamed, before._renamed),
        )
        return summary(changes, "no rule has changed")

    def _decided(self, method: str, name: str, scopes: frozenset[str]) -> Decision:
        needed = self._methods.get(method)
        if needed is None:
            needed = self._methods.get(f"{method.rpartition('/')[0]}/*")
        if needed is None:
            return _NOT_LISTED
        return Decision(False, "scope_missing", needed) if needed.isdisjoint(self._granted(name, scopes)) else _ALLOWED

    def _granted(self, name: str, scopes: frozenset[str]) -> set[str]:
        """The scopes of the credential and of every rule that fits the name."""
        granted = {self._renamed.get(scope, scope) for scope in scopes}
        granted |= self._principals.get(name, frozenset())
        for fits, more in self._patterns:
            if fits(name):
                granted |= more
        return granted


def _scope_list(found: TomlText, table: str, key: str, known: Collection[str]) -> frozenset[str]:
    scopes = found.tables[table][key]
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise found.error(table, key, what="a list of scopes is needed", do='write it as ["align"]')
    for scope in scopes:
        found.check_known("scope", scope, known, table, key, scope)
        if scopes.count(scope) > 1:
            raise found.error(table, key, scope, what=f"{quoted(scope)} is listed twice", do="remove one")
    return frozenset(scopes)


def _check_method(found: TomlText, name: str, served: Collection[str]) -> None:
    service, _, last = name.rpartition("/")
    services = {f"{method.rpartition('/')[0]}/*" for method in served}
    if name in served or (last == "*" and name in services):
        return
    if "*" in name and (last != "*" or "*" in service or not service):
        raise found.error(_METHODS, name, what="a * stands for all methods of one service and nothing else", do=_SHAPE)
    near = difflib.get_close_matches(name, sorted({*served, *services}), n=1, cutoff=0.5)
    what = "this server has no such service" if last == "*" else "this server has no such method"
    raise found.error(_METHODS, name, what=what, do=f'did you mean "{near[0]}"?' if near else _SHAPE)


def _check_principal(found: TomlText, name: str, granted: frozenset[str]) -> None:
    if name == "*":
        what = "a bare * would grant its scopes to everyone with any credential at all"
        raise found.error(_PRINCIPALS, name, what=what, do="write mtls:*, jwt:* or key:*, as many of them as are meant")
    fault = pattern_fault(name)
    if fault is not None:
        raise found.error(_PRINCIPALS, name, what=fault[0], do=fault[1])
    if not granted:
        raise found.error(_PRINCIPALS, name, what="an empty list grants nothing", do="name a scope, or remove the line")


def _check_renamed(found: TomlText, theirs: str, ours: object, known: Collection[str]) -> None:
    if theirs in known:
        raise found.error(_SCOPES, theirs, what="this is one of the server's own scopes", do="remove the line")
    if not isinstance(ours, str):
        raise found.error(_SCOPES, theirs, what="the name of one scope is needed", do='write it as "align"')
    found.check_known("scope", ours, known, _SCOPES, theirs, ours)


def _listed(grants: _Grants) -> dict[str, str]:
    return {name: " ".join(sorted(scopes)) or "no scope" for name, scopes in grants.items()}
