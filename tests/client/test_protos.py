"""What callers in other languages take: the proto without its rules, protos it builds on, the service config."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_tools import protoc

from aligner_client import service_config
from aligner_client.api.v1 import aligner_pb2
from tests import PROJECT
from tests.kit.node_client import node_call
from tests.kit.npm import needs_node
from tests.kit.scripted_aligner import Fault, scripted_server

PROTOS = PROJECT / "client" / "protos"
WELL_KNOWN = resources.files("grpc_tools") / "_proto"
CONFIG = (PROJECT / "client" / "aligner_client" / service_config.FILE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("aligner/v1/aligner.proto", aligner_pb2.DESCRIPTOR),
        ("grpc/health/v1/health.proto", health_pb2.DESCRIPTOR),
        ("google/rpc/status.proto", status_pb2.DESCRIPTOR),
        ("google/rpc/error_details.proto", error_details_pb2.DESCRIPTOR),
    ],
)
def test_a_proto_says_what_the_server_speaks(tmp_path: Path, name: str, known) -> None:
    assert protoc.main(["protoc", f"-I{PROTOS}", f"-I{WELL_KNOWN}", f"--descriptor_set_out={tmp_path / 'out'}", name]) == 0
    (compiled,) = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "out").read_bytes()).file
    served = descriptor_pb2.FileDescriptorProto.FromString(known.serialized_pb)
    assert without_rules(compiled) == without_rules(served)


@pytest.mark.parametrize(
    ("protos", "files", "said"),
    [(PROJECT / "protos", ["buf/validate/validate.proto"], "works"), (PROTOS, [], "duplicate file name")],
)
def test_which_stubs_work_beside_the_client(tmp_path: Path, protos: Path, files: list[str], said: str) -> None:
    """As docs/clients.md says, for the protobuf that everybody has."""
    sources = ["aligner/v1/aligner.proto", *files]
    assert protoc.main(["protoc", f"-I{protos}", f"-I{WELL_KNOWN}", f"--python_out={tmp_path}", *sources]) == 0
    own = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from aligner.v1 import aligner_pb2 as own\n"
    both = "from aligner_client.api.v1 import aligner_pb2 as theirs\nassert own.AlignConfig is theirs.AlignConfig; print('works')"
    variables = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "upb"}
    done = subprocess.run([sys.executable, "-c", own + both], capture_output=True, text=True, check=False, env=variables)
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize(("asked", "found"), [(None, "ERROR"), ("debug", "debug")])
def test_importing_the_client_leaves_grpc_its_errors(asked: str | None, found: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    variables |= {"GRPC_VERBOSITY": asked} if asked else {}
    code = "import aligner_client, os; print(os.environ['GRPC_VERBOSITY'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=variables).strip() == found


def without_rules(file: descriptor_pb2.FileDescriptorProto) -> str:
    """Its text, without its name, its options, which are rules and names of packages, and what it imports."""
    text = re.sub(r"^( *)(options|json_name)\b.*?(\{.*?^\1\}|\"\n)", "", str(file), flags=re.DOTALL | re.MULTILINE)
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() and not line.startswith(("dependency", "name:")))


@needs_node
async def test_node_calls_with_the_proto_and_retries_as_the_config_says() -> None:
    with scripted_server() as server:
        server.script.faults.extend([Fault(grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING")] * 2)
        request = {"config": {"transcript": "one two", "language": "en"}, "audio": "UklGRg=="}
        options = {"grpc.service_config": CONFIG}
        answer = await node_call(server.target, "aligner.v1.Aligner/Align", request, protos=PROTOS, options=options)
        assert [word["text"] for word in answer.response["words"]] == ["one", "two"]
        assert len(server.script.calls) == 3
        parts = [{"config": request["config"]}, {"audio": "UklG"}, {"audio": "Rg=="}]
        streamed = await node_call(server.target, "aligner.v1.Aligner/StreamAlign", parts, protos=PROTOS, options=options)
        assert (streamed.code, server.script.calls[-1].audio) == (grpc.StatusCode.OK, b"RIFF")
        server.script.faults.append(Fault(grpc.StatusCode.INVALID_ARGUMENT, "no", "TRANSCRIPT_EMPTY"))
        refused = await node_call(server.target, "aligner.v1.Aligner/Align", request, protos=PROTOS, options=options)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "grpc-status-details-bin" in refused.trailing
