"""The rules that the proto states are evaluated, and reported with the reasons of docs/errors.md."""

from __future__ import annotations

import subprocess
import sys

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.rpc.field_rules import ProtoRules
from aligner_svc.text import normalise_language
from interceptors.calls.refusal import BrokenRule, CallRefusedError
from interceptors.payload_rules import PayloadRules

GOOD = {"transcript": "a word", "language": "en"}


@pytest.fixture(scope="module")
def rules() -> ProtoRules:
    return ProtoRules()


def align(**config) -> pb.AlignRequest:
    return pb.AlignRequest(config=pb.AlignConfig(**(GOOD | config)), audio=b"RIFF")


BROKEN = {
    "no language": ({"language": ""}, "config.language", "LANGUAGE_INVALID"),
    "a name for a tag": ({"language": "the English language"}, "config.language", "LANGUAGE_INVALID"),
    "a tag of four letters": ({"language": "engl"}, "config.language", "LANGUAGE_INVALID"),
    "a tag with a newline": ({"language": "en\n"}, "config.language", "LANGUAGE_INVALID"),
    "a long tag": ({"language": "en-" + "-".join(["abcdefgh"] * 4)}, "config.language", "LANGUAGE_INVALID"),
    "an encoding from the future": ({"encoding": 99}, "config.encoding", "ENCODING_UNKNOWN"),
    "a low rate": ({"encoding": 1, "sample_rate_hz": 3_999}, "config.sample_rate_hz", "SAMPLE_RATE_OUT_OF_RANGE"),
    "a high rate": ({"encoding": 1, "sample_rate_hz": 192_001}, "config.sample_rate_hz", "SAMPLE_RATE_OUT_OF_RANGE"),
    "9 channels": ({"channels": 9}, "config.channels", "CHANNELS_OUT_OF_RANGE"),
    "half a digest": ({"audio_sha256": bytes(16)}, "config.audio_sha256", "PAYLOAD_INVALID"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("wrap", [lambda request: request, lambda request: pb.StreamAlignRequest(config=request.config)])
def test_a_broken_rule(rules, name, wrap):
    config, field, reason = BROKEN[name]
    (broken,) = rules(wrap(align(**config)))
    assert (broken.field, broken.reason) == (field, reason)
    assert broken.description
    assert "English" not in broken.description


@pytest.mark.parametrize(
    "message",
    [
        align(),
        align(language="de-CH-1996", encoding=1, sample_rate_hz=4_000, channels=8),
        align(language="en_US", encoding=3, sample_rate_hz=192_000, audio_bytes=2**63, audio_sha256=bytes(32)),
        pb.AlignRequest(config=pb.AlignConfig(language="en")),
        pb.StreamAlignRequest(config=align().config),
        pb.StreamAlignRequest(audio=b""),
        pb.StreamAlignRequest(audio=bytes(1 << 20)),
        pb.StreamAlignRequest(transcript=""),
        pb.StreamAlignRequest(),
        pb.GetServerInfoRequest(),
        Empty(),
        b"no message of ours",
    ],
    ids=lambda message: type(message).__name__,
)
def test_nothing_broken(rules, message):
    """An empty stream message is the upload's to judge: it may lack a config, or a payload."""
    assert rules(message) == ()


def test_a_request_without_config(rules):
    assert [(broken.field, broken.reason) for broken in rules(pb.AlignRequest(audio=b"RIFF"))] == [("config", "CONFIG_MISSING")]


def test_numbers_are_reported(rules):
    rate, channels = rules(align(encoding=1, sample_rate_hz=4_294_967_295, channels=9))
    assert "4294967295 Hz; 4000 to 192000" in rate.description
    assert "9 channels; 1 to 8" in channels.description


@given(
    st.text(st.sampled_from("enEN-_0a\n\u00e9 "), max_size=40)
    | st.from_regex(r"[a-z]{1,9}([-_][a-z0-9]{1,9}){0,5}", fullmatch=True)
)
def test_the_proto_says_of_tags_what_the_service_does(language):
    """Two statements of one rule: a client that checks requests by the proto gets the same answer."""
    try:
        normalise_language(language)
        sound = True
    except InvalidArgumentError:
        sound = False
    assert (RULES(align(language=language)) == ()) == sound


RULES = ProtoRules()


def test_a_refusal_names_every_field():
    rules = PayloadRules(lambda message: [BrokenRule("config.a", "A_WRONG", "a is wrong"), BrokenRule("b", "B_WRONG", "b too")])
    with pytest.raises(CallRefusedError) as caught:
        rules.check(object())
    refused = caught.value
    assert (refused.code, refused.reason, refused.message) == (grpc.StatusCode.INVALID_ARGUMENT, "A_WRONG", "a is wrong")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details = refused.status("test").details
    assert [details[0].Unpack(info), details[1].Unpack(bad)] == [True, True]
    assert [(one.field, one.reason, one.description) for one in bad.field_violations] == [
        ("config.a", "A_WRONG", "a is wrong"),
        ("b", "B_WRONG", "b too"),
    ]


def test_a_refusal_stays_small():
    many = [BrokenRule(f"words[{number}]", "WORD_WRONG", "wrong") for number in range(1000)]
    with pytest.raises(CallRefusedError) as caught:
        PayloadRules(lambda message: many).check(object())
    assert len(caught.value.broken) == 16


def test_nothing_broken_is_no_refusal():
    PayloadRules(lambda message: ()).check(object())


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_name_buf_is_left_to_others():
    """A client imports the API, and whatever else is called `buf`."""
    loaded = "{name.partition('.')[0] for name in sys.modules}"
    run(f"import sys, aligner_client; assert not {{'buf', 'protovalidate'}} & {loaded}")


def test_a_buf_validate_that_is_there_already_is_used(tmp_path):
    """Two versions of one .proto cannot be loaded into a process: a caller's own comes first."""
    (tmp_path / "buf" / "validate").mkdir(parents=True)
    (tmp_path / "buf" / "validate" / "validate_pb2.py").write_text(
        "from aligner_client.api.buf.validate.validate_pb2 import *\n"
        "from aligner_client.api.buf.validate.validate_pb2 import DESCRIPTOR\n"
        "OURS = False\n"
    )
    run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from aligner_svc.rpc.field_rules import ProtoRules\n"
        "from aligner_client.api.rule_options import validate_pb2\n"
        "from aligner_client.api.v1 import aligner_pb2 as pb\n"
        "assert validate_pb2.OURS is False and sys.modules['buf.validate.validate_pb2'] is validate_pb2\n"
        "assert ProtoRules()(pb.AlignRequest())\n"
    )
