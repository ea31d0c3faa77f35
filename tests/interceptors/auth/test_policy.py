"""The policy: what it allows, which mistakes in it are refused, and how its file is followed."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interceptors.auth.policy import Decision, Policy
from interceptors.calls.principal import Principal
from interceptors.calls.security_event import Event, Record
from interceptors.rules.file import RulesFile
from interceptors.rules.toml_text import MAX_BYTES, RulesError
from tests import PROJECT

ALIGN, STREAM, INFO = "/pkg.v1.Aligner/Align", "/pkg.v1.Aligner/StreamAlign", "/pkg.v1.Aligner/GetServerInfo"
REFLECT = "/reflection.v1.Reflection/Info"
SERVED = (ALIGN, STREAM, INFO, REFLECT)
EXAMPLE = PROJECT / "deploy" / "policy.example.toml"


def policy(text: str) -> Policy:
    return Policy.parse(text, "policy.toml", SERVED)


def principal(name: str = "key:1", *scopes: str) -> Principal:
    return Principal(name, "api_key", frozenset(scopes))


def granted(pattern: str, name: str) -> bool:
    found = policy(f'[methods]\n"{ALIGN}" = ["align"]\n[principals]\n"{pattern}" = ["align"]\n')
    return found.allows(ALIGN, principal(name)).allowed


def test_a_method_that_is_not_listed_is_denied():
    found = policy(f'[methods]\n"{ALIGN}" = ["align"]\n')
    everyone = principal("key:1", "align", "admin")
    assert found.allows(ALIGN, everyone) == Decision(True)
    assert found.allows(STREAM, everyone) == Decision(False, "method_not_listed")
    assert found.allows(ALIGN, principal("key:2")) == Decision(False, "scope_missing", frozenset({"align"}))


def test_one_of_the_scopes_is_enough_and_an_empty_list_denies_all():
    found = policy(f'[methods]\n"{ALIGN}" = ["align", "admin"]\n"{STREAM}" = []\n')
    assert found.allows(ALIGN, principal("key:1", "admin")).allowed
    assert found.allows(STREAM, principal("key:1", "align", "admin")) == Decision(False, "scope_missing")


def test_the_entry_of_a_method_takes_precedence_over_its_services():
    text = f'[methods]\n"{INFO}" = ["admin"]\n"/pkg.v1.Aligner/*" = ["align"]\n"{STREAM}" = []\n'
    found = policy(text)
    aligner = principal("key:1", "align")
    assert [found.allows(method, aligner).allowed for method in SERVED] == [True, False, False, False]
    assert found.allows(REFLECT, aligner).check == "method_not_listed"


def test_scopes_of_the_policy_add_to_those_of_the_credential():
    text = f"""
        [methods]
        "{ALIGN}" = ["align"]
        "{INFO}" = ["admin"]
        [principals]
        "mtls:spiffe://example.org/*" = ["align"]
        "mtls:spiffe://example.org/ops" = ["admin"]
    """
    found = policy(text)
    ops, batch = principal("mtls:spiffe://example.org/ops"), principal("mtls:spiffe://example.org/batch")
    assert [found.allows(method, ops).allowed for method in (ALIGN, INFO)] == [True, True]
    assert [found.allows(method, batch).allowed for method in (ALIGN, INFO)] == [True, False]
    assert found.allows(INFO, principal("mtls:spiffe://example.org/batch", "admin")).allowed


def test_scopes_of_tokens_can_be_renamed():
    found = policy(f'[methods]\n"{ALIGN}" = ["align"]\n[scopes]\n"https://example.org/align.all" = "align"\n')
    assert found.allows(ALIGN, principal("jwt:https://idp#a", "https://example.org/align.all")).allowed
    assert found.allows(ALIGN, principal("jwt:https://idp#a", "align")).allowed
    assert not found.allows(ALIGN, principal("jwt:https://idp#a", "align.all")).allowed


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("key:3fb1c9", "key:3fb1c9", True),
        ("key:3fb1c9", "key:3fb1c90", False),
        ("key:*", "key:3fb1c9", True),
        ("key:*", "key:", False),
        ("key:*", "jwt:key:3fb1c9", False),
        ("mtls:spiffe://example.org/*", "mtls:spiffe://example.org/batch/7", True),
        ("mtls:spiffe://example.org/*", "mtls:spiffe://example.org/", False),
        ("mtls:spiffe://example.org/*", "mtls:spiffe://example.org.attacker.net/batch", False),
        ("mtls:spiffe://example.org/*", "jwt:mtls:spiffe://example.org/batch", False),
        ("mtls:spiffe://example.org/*/aligner", "mtls:spiffe://example.org/eu/aligner", True),
        ("mtls:spiffe://example.org/*/aligner", "mtls:spiffe://example.org/eu/fr/aligner", False),
        ("mtls:spiffe://example.org/*/aligner", "mtls:spiffe://example.org/eu/aligner/x", False),
        ("mtls:*.example.org", "mtls:batch.example.org", True),
        ("mtls:*.example.org", "mtls:a.batch.example.org", False),
        ("mtls:*.example.org", "mtls:batch-example-org", False),
        ("jwt:https://idp.example.org#*", "jwt:https://idp.example.org#a\nb#c", True),
        ("jwt:https://idp.example.org#*", "jwt:https://idp.example.org/realm#a", False),
        ("jwt:https://idp.example.org#*", "jwt:https://idpxexample.org#a", False),
    ],
)
def test_a_star_is_one_part_of_a_name_and_at_the_end_all_the_rest(pattern, name, fits):
    assert granted(pattern, name) is fits


@given(st.text(min_size=1), st.text())
def test_an_exact_rule_applies_to_its_own_name_only(name, other):
    text = f'[methods]\n"{ALIGN}" = ["align"]\n[principals]\n"key:a.b" = ["align"]\n'
    assert policy(text).allows(ALIGN, principal(f"key:{name}")).allowed is (name == "a.b")
    assert not policy(text).allows(ALIGN, principal(f"{other}jwt:key:a.b")).allowed


METHODS = f'[methods]\n"{ALIGN}" = ["align"]\n'


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ("", None, "[methods] is empty, which denies every call"),
        ("[methods]\n", 1, "[methods] is empty"),
        ("# x\n[methods\n", 2, "not valid TOML"),
        (f"[methods]\n{ALIGN} = []\n", 2, "in quotes"),
        (f'{METHODS}"{ALIGN}" = ["admin"]\n', 3, "not valid TOML: cannot overwrite a value"),
        (f"{METHODS}[methods]\n", 3, "not valid TOML"),
        (f"{METHODS}x = {'[' * 5000}", None, "nested too deeply"),
        (f"{METHODS}[principal]\n", 3, 'no such table: "principal"; did you mean "principals"?'),
        (f"{METHODS}[roles]\n", 3, 'no such table: "roles"; use one of methods, principals, scopes'),
        (f"deny = true\n{METHODS}", 1, 'no such table: "deny"'),
        ('methods = ["x"]\n', 1, "methods is not a table; begin it with [methods]"),
        (f'[methods]\n"{ALIGN}" = "align"\n', 2, 'a list of scopes is needed; write it as ["align"]'),
        (f'[methods]\n"{ALIGN}" = [["align"]]\n', 2, "a list of scopes is needed"),
        (f'[methods]\n"{ALIGN}" = true\n', 2, "a list of scopes is needed"),
        (f'[methods."{ALIGN}"]\nscopes = []\n', 1, "a list of scopes is needed"),
        (f'[methods]\n"{ALIGN}" = [\n  "align",\n  "admn",\n]\n', 4, 'no such scope: "admn"; did you mean "admin"?'),
        (f'[methods]\n"{ALIGN}" = ["*"]\n', 2, 'no such scope: "*"; use one of admin, align'),
        (f'[methods]\n"{ALIGN}" = ["align", "align"]\n', 2, '"align" is listed twice; remove one'),
        (f'{METHODS}"/pkg.v1.Aligner/Algin" = []\n', 3, f'no such method; did you mean "{ALIGN}"?'),
        (f'{METHODS}"/pkg.v2.Aligner/*" = []\n', 3, 'no such service; did you mean "/pkg.v1.Aligner/*"?'),
        (f'{METHODS}"{ALIGN.lower()}" = []\n', 3, f'did you mean "{ALIGN}"?'),
        (f'{METHODS}"{ALIGN[1:]}" = []\n', 3, f'did you mean "{ALIGN}"?'),
        (f'{METHODS}"zzz" = []\n', 3, 'no such method; write "/package.Service/Method"'),
        (f'{METHODS}"*" = []\n', 3, "a * stands for all methods of one service and nothing else"),
        (f'{METHODS}"/*" = []\n', 3, "a * stands for all methods of one service"),
        (f'{METHODS}"/pkg.v1.*/Align" = []\n', 3, "a * stands for all methods of one service"),
        (f'{METHODS}"/pkg.v1.Aligner/Al*" = []\n', 3, "a * stands for all methods of one service"),
        (f'{METHODS}[principals]\n"*" = ["align"]\n', 4, "write mtls:*, jwt:* or key:*"),
        (f'{METHODS}[principals]\n"batch" = ["align"]\n', 4, "begin with mtls:, jwt: or key:"),
        (f'{METHODS}[principals]\n"key:" = ["align"]\n', 4, "says how it was proven and who it is"),
        (f'{METHODS}[principals]\n"*:batch" = ["align"]\n', 4, "begin with mtls:, jwt: or key:"),
        (f'{METHODS}[principals]\n"key:1" = []\n', 4, "an empty list grants nothing"),
        (f"{METHODS}[principals]\n'mtls:spiffe://example.org*' = ['align']\n", 4, "a * stands for a whole part of a name"),
        (f'{METHODS}[principals]\n"mtls:*example.org" = ["align"]\n', 4, "a * stands for a whole part of a name"),
        (f'{METHODS}[principals]\n"key:**" = ["align"]\n', 4, "a * stands for a whole part of a name"),
        (f'{METHODS}[principals]\n"key:1" = ["Align"]\n', 4, 'no such scope: "Align"; did you mean "align"?'),
        (f'{METHODS}[scopes]\n"align" = "admin"\n', 4, "one of the server's own scopes"),
        (f'{METHODS}[scopes]\n"a" = ["align"]\n', 4, "the name of one scope is needed"),
        (f'{METHODS}[scopes]\n"a" = "b"\n', 4, 'no such scope: "b"'),
        (f'{METHODS}"a\\n[principals]" = []\n', 1, '"a\\n[principals]": this server has no such method'),
    ],
)
def test_a_mistake_in_the_policy_is_refused_with_its_line(text, line, fault):
    with pytest.raises(RulesError) as error:
        policy(text)
    message = str(error.value)
    assert fault in message
    assert "\n" not in message
    assert "; " in message
    assert message.startswith(f"policy.toml, line {line}: " if line else "policy.toml: ")


def test_a_policy_can_have_other_scopes():
    found = Policy.parse(f'[methods]\n"{ALIGN}" = ["read"]\n', "x", SERVED, scopes={"read"})
    assert found.allows(ALIGN, principal("key:1", "read")).allowed


def test_remembered_decisions_depend_on_caller_method_and_scopes():
    found = policy(f'{METHODS}"{INFO}" = ["admin"]\n[principals]\n"key:2" = ["align"]\n')
    for _ in range(2):
        assert [found.allows(ALIGN, principal(f"key:{n}")).allowed for n in (1, 2, 3)] == [False, True, False]
        assert not found.allows(INFO, principal("key:2")).allowed
        assert found.allows(INFO, principal("key:2", "admin")).allowed


def test_a_byte_order_mark_and_crlf_are_accepted():
    assert policy("\ufeff" + METHODS.replace("\n", "\r\n")).allows(ALIGN, principal("key:1", "align")).allowed


def test_changes_are_summed_up_in_one_bounded_line():
    before = policy(f'{METHODS}"{STREAM}" = ["align"]\n[principals]\n"key:1" = ["align"]\n')
    after = policy(f'{METHODS}"{STREAM}" = []\n"{INFO}" = ["admin"]\n[principals]\n"key:2" = ["admin", "align"]\n')
    assert after.changes_since(before) == (
        f"methods: +{INFO} (admin), {STREAM} (align -> no scope); principals: -key:1 (align), +key:2 (admin align)"
    )
    assert before.changes_since(policy(f"# the same\n{METHODS}\"{STREAM}\" = ['align']\n[principals]\n'key:1'=['align']")) == (
        "no rule has changed"
    )
    many = policy(METHODS + "[principals]\n" + "".join(f'"key:{n}" = ["align"]\n' for n in range(1000)))
    assert len(many.changes_since(before)) == 400


def test_the_example_is_valid():
    aligner, reflection = "/aligner.v1.Aligner/", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    served = [*(f"{aligner}{name}" for name in ("Align", "StreamAlign", "GetServerInfo")), reflection]
    found = Policy.parse(EXAMPLE.read_text(), str(EXAMPLE), served)
    assert found.allows(f"{aligner}Align", principal("key:1", "align")).allowed
    assert not found.allows(f"{aligner}Align", principal("key:1")).allowed
    assert found.allows(f"{aligner}StreamAlign", principal("mtls:spiffe://example.org/batch/7")).allowed


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(METHODS)
    return path


def followed(path: Path, record: Record, every: float = 1.0) -> RulesFile[Policy]:
    return RulesFile(path, partial(Policy.parse, served=SERVED), record, every)


def test_a_bad_file_is_refused_at_the_start(tmp_path, file):
    with pytest.raises(RulesError, match=r"cannot be read: no such file or directory"):
        followed(tmp_path / "none.toml", lambda event: None)
    with pytest.raises(RulesError, match="cannot be read: is a directory"):
        followed(tmp_path, lambda event: None)
    file.write_bytes(METHODS.encode() + b"# caf\xe9\n")
    with pytest.raises(RulesError, match="line 3: not UTF-8"):
        followed(file, lambda event: None)
    file.write_bytes(b"\xc3\xa9" * MAX_BYTES)
    with pytest.raises(RulesError, match="larger than 256 KiB"):
        followed(file, lambda event: None)


def test_a_bad_reload_keeps_what_is_in_force_and_says_why(file):
    events = []
    found = followed(file, events.append)
    first = found.current
    for bad, said in ((METHODS + "[principal]\n", f"{file}, line 3: no such table"), (None, "cannot be read")):
        file.write_text(bad) if bad else file.unlink()
        found.reload()
        assert found.current is first
        assert events[-1].event == Event.POLICY_RELOAD_FAILED
        assert said in events[-1].detail
    file.write_text(METHODS)
    found.reload()
    assert (events[-1].event, len(events)) == (Event.POLICY_CHANGED, 3)  # that it is good again is recorded
    found.reload()
    assert len(events) == 3


async def test_a_change_of_the_file_is_recorded_and_applies(file):
    events: asyncio.Queue = asyncio.Queue()
    found = followed(file, events.put_nowait, 0.01)
    await found.start()
    caller = principal("key:1")
    assert not found.current.allows(ALIGN, caller).allowed
    text = METHODS + '[principals]\n"key:1" = ["align"]\n'
    file.write_text(text)
    event = await asyncio.wait_for(events.get(), 30)
    assert event.event == Event.POLICY_CHANGED
    assert hashlib.sha256(text.encode()).hexdigest()[:12] in event.detail
    assert event.detail.endswith("; principals: +key:1 (align)")
    assert found.current.allows(ALIGN, caller).allowed
    # As Kubernetes does it: another file takes the name.
    (file.parent / "new").write_text(METHODS)
    (file.parent / "new").replace(file)
    await asyncio.wait_for(events.get(), 30)
    assert not found.current.allows(ALIGN, caller).allowed
    await found.close()
