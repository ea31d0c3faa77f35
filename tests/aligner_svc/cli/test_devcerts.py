"""`aligner devcerts`, and whether other TLS implementations accept its certificates."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from aligner_client.api.v1 import aligner_pb2, aligner_pb2_grpc
from aligner_svc.cli.devcerts import devcerts
from aligner_svc.transport import devcerts as made
from aligner_svc.transport.tls import ServerCertificates
from interceptors.auth.mtls import CertificateAuthenticator
from interceptors.calls.principal import Principal
from tests import PROJECT
from tests.kit.certificates import authority, client
from tests.kit.chain_server import started
from tests.kit.node_client import node_call
from tests.kit.npm import needs_node

_BESIDE = Path(sys.executable).with_name("grpcurl")
GRPCURL = str(_BESIDE) if _BESIDE.exists() else shutil.which("grpcurl")
PROTOS = PROJECT / "protos"
METHOD = "aligner.v1.Aligner/GetServerInfo"

app = typer.Typer()
app.command()(devcerts)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def read(name: str, folder: str = "devcerts") -> x509.Certificate:
    return made.read(Path(folder), name).certificate


def extension(certificate: x509.Certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def names(certificate: x509.Certificate) -> list[str]:
    return [str(name.value) for name in extension(certificate, x509.SubjectAlternativeName).value]


def test_a_ca_a_server_and_a_client_are_made():
    out = done().stdout
    folder = Path("devcerts")
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert files == {f"{name}.pem": 0o644 for name in ("ca", "server", "client")} | {
        f"{name}.key": 0o600 for name in ("ca", "server", "client")
    }
    for word in ("ALIGNER_TLS__CERTIFICATE=devcerts/server.pem", "ALIGNER_TLS__CLIENT_CA=devcerts/ca.pem", "grpcurl -cacert"):
        assert word in out
    assert "aligner info --ca devcerts/ca.pem --cert devcerts/client.pem --key devcerts/client.key" in out
    assert "PRIVATE KEY" not in out


def test_the_certificates_have_the_right_extensions():
    done()
    ca, own, caller = read("ca"), read("server"), read("client")
    for certificate in (ca, own, caller):
        assert "throw-away CA" in certificate.subject.rfc4514_string()
        assert certificate.issuer == ca.subject
        assert timedelta(days=29) < certificate.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=30)
    constraints = extension(ca, x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert extension(ca, x509.KeyUsage).value.key_cert_sign
    for certificate in (own, caller):
        assert extension(certificate, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
        usage = extension(certificate, x509.KeyUsage)
        assert usage.critical
        assert (usage.value.digital_signature, usage.value.key_cert_sign) == (True, False)
        issuer = extension(certificate, x509.AuthorityKeyIdentifier).value
        assert issuer.key_identifier == extension(ca, x509.SubjectKeyIdentifier).value.digest
    assert names(own) == ["localhost", "127.0.0.1", "::1"]
    assert names(caller) == ["spiffe://dev.local/client", "client.dev.local"]
    assert list(extension(own, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert ExtendedKeyUsageOID.CLIENT_AUTH in extension(caller, x509.ExtendedKeyUsage).value
    assert len({certificate.serial_number for certificate in (ca, own, caller)}) == 3


def test_options():
    out = done("some where", "--host", "Aligner.Test", "--host", "10.0.0.7", "--client", "alice", "--client", "bob", "--days", 2)
    assert names(read("server", "some where")) == ["localhost", "127.0.0.1", "::1", "aligner.test", "10.0.0.7"]
    assert names(read("bob", "some where")) == ["spiffe://dev.local/bob", "bob.dev.local"]
    assert read("ca", "some where").not_valid_after_utc < datetime.now(UTC) + timedelta(days=2, minutes=1)
    assert not Path("some where/client.pem").exists()
    exported = next(line for line in out.stdout.splitlines() if "ALIGNER_TLS__CERTIFICATE" in line)
    assert "ALIGNER_TLS__CERTIFICATE=some where/server.pem" in shlex.split(exported)


def test_a_client_is_added_later_by_the_same_ca():
    done()
    before = {path: path.read_bytes() for path in Path("devcerts").iterdir()}
    out = done("--client", "bob").stdout
    assert {path: path.read_bytes() for path in before} == before
    assert made.signed_by(Path("devcerts/bob.pem"), made.read(Path("devcerts"), "ca"))
    assert "devcerts/bob.key" in out
    assert "server.pem: localhost" not in out


def test_the_server_is_renewed_by_the_same_ca():
    done()
    ca, old = read("ca"), read("server")
    done("--host", "aligner.test")
    assert read("ca") == ca
    assert read("server") != old
    assert "aligner.test" in names(read("server"))


def test_a_client_does_not_outlive_the_ca():
    done("--days", 2)
    done("--client", "bob", "--days", 300)
    assert read("bob").not_valid_after_utc == read("ca").not_valid_after_utc


def test_a_ca_is_replaced_only_with_force():
    done("--client", "alice")
    ca = read("ca")
    refused = run()
    assert refused.exit_code == 1
    assert "has a CA already" in refused.stderr
    assert "--force" in refused.stderr
    assert read("ca") == ca
    Path("devcerts/other.pem").write_text("from elsewhere")
    forced = done("--force")
    assert read("ca") != ca
    assert "alice.pem was signed by an earlier CA" in forced.stderr
    assert "client.pem was" not in forced.stderr
    assert "other.pem" not in forced.stderr


def _real(folder: Path, name: str) -> dict[Path, bytes]:
    """A certificate and key that this command did not make."""
    key = made.authority(30).key_pem
    certificate = subprocess.run(
        ["openssl", "req", "-x509", "-key", "/dev/stdin", "-subj", "/CN=real", "-days", "9"],
        input=key,
        capture_output=True,
        check=True,
    ).stdout
    folder.mkdir(exist_ok=True)
    files = {folder / f"{name}.key": key, folder / f"{name}.pem": certificate}
    for path, content in files.items():
        path.write_bytes(content)
    return files


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize("name", ["ca", "server", "client"])
@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("with_certificate", [True, False])
def test_files_from_elsewhere_are_never_overwritten(name, force, with_certificate):
    files = _real(Path("devcerts"), name)
    if not with_certificate:
        Path("devcerts", f"{name}.pem").unlink()
        del files[Path("devcerts", f"{name}.pem")]
    assert run("--client", "client", *force).exit_code == 1
    assert {path: path.read_bytes() for path in Path("devcerts").iterdir()} == files


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "ca.key").unlink(), "no such file"),
        (lambda folder: (folder / "ca.key").write_bytes(made.authority(1).key_pem), "does not belong"),
        (lambda folder: made.write(folder, "ca", authority(days=1, begun=3)), "has expired"),
    ],
)
def test_an_unusable_ca_is_reported(spoil, says):
    done()
    spoil(Path("devcerts"))
    refused = run("--client", "bob")
    assert refused.exit_code == 1
    assert says in refused.stderr
    assert "--force" in refused.stderr
    assert not Path("devcerts/bob.pem").exists()
    done("--force")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--client", "ca"),
        ("--client", "server"),
        ("--client", "../evil"),
        ("--client", "Bob"),
        ("--client", "a.b"),
        ("--client", ""),
        ("--client", "x" * 64),
        ("--host", "a b"),
        ("--host", "host:443"),
        ("--host", "b\u00fccher.example"),
        ("--host", "a\n"),
        ("--days", "0"),
        ("--days", "398"),
    ],
)
def test_wrong_usage(arguments):
    assert run(*arguments).exit_code == 2
    assert not Path("devcerts").exists()


def test_a_directory_that_cannot_be_made_is_reported():
    Path("devcerts").write_text("a file")
    refused = run()
    assert refused.exit_code == 1
    assert "error:" in refused.stderr


def test_nothing_is_left_behind_when_a_file_cannot_be_written():
    folder = Path("devcerts")
    folder.mkdir()
    (folder / "x.pem").mkdir()
    with pytest.raises(OSError, match=r"x\.pem"):
        made.write(folder, "x", authority())
    assert sorted(path.name for path in folder.iterdir()) == ["x.key", "x.pem"]


# Other TLS implementations


class Servicer(aligner_pb2_grpc.AlignerServicer):
    """Answers with the principal's name and a header."""

    authenticator = CertificateAuthenticator(("spiffe",), ("spiffe://dev.local/*",))

    async def GetServerInfo(self, request, context):  # noqa: N802
        verdict = await self.authenticator.authenticate("", context.auth_context())
        assert isinstance(verdict, Principal)
        headers = dict(context.invocation_metadata())
        return aligner_pb2.GetServerInfoResponse(version=f"{verdict.name} {headers.get('x-word', '')}".strip())

    async def Align(self, request, context):  # noqa: N802
        context.set_trailing_metadata((("x-bytes-bin", b"\0\1"),))
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{len(request.audio)} bytes")

    async def StreamAlign(self, requests, context):  # noqa: N802
        async for request in requests:
            yield aligner_pb2.StreamAlignResponse(progress=aligner_pb2.Progress(received_bytes=len(request.audio)))


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[str]:
    certificates = ServerCertificates(folder / "server.pem", folder / "server.key", folder / "ca.pem", print, every=60)
    running = grpc.aio.server()
    aligner_pb2_grpc.add_AlignerServicer_to_server(Servicer(), running)
    async with started(running, certificates.credentials()) as target:
        yield f"localhost:{target.rpartition(':')[2]}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_accepts_the_certificates():
    done()
    for name, purpose in (("server", "sslserver"), ("client", "sslclient")):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "devcerts/ca.pem", f"devcerts/{name}.pem"]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr + checked.stdout


@needs_node
async def test_node_accepts_the_certificates(tmp_path):
    done("--client", "alice")
    folder = tmp_path / "devcerts"
    files = {"ca": folder / "ca.pem", "certificate": folder / "alice.pem", "key": folder / "alice.key"}
    async with serving(folder) as target:
        answer = await node_call(target, METHOD, **files, metadata={"x-word": "hello"})
        assert answer.response["version"] == "mtls:spiffe://dev.local/alice hello"
        refused = await node_call(target, "aligner.v1.Aligner/Align", {"audio": "AAEC"}, **files)
        assert (refused.code, refused.details) == (grpc.StatusCode.INVALID_ARGUMENT, "3 bytes")
        assert refused.trailing["x-bytes-bin"] == "AAE="
        streamed = await node_call(target, "aligner.v1.Aligner/StreamAlign", [{"audio": "AA=="}, {"audio": "AAEC"}], **files)
        assert [response["progress"]["received_bytes"] for response in streamed.responses] == [1, 3]
        anonymous = await node_call(target, METHOD, ca=files["ca"])
        assert anonymous.code is grpc.StatusCode.UNAVAILABLE
        plain = await node_call(target, METHOD)
        assert plain.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.skipif(GRPCURL is None, reason="needs grpcurl")
async def test_grpcurl_works_as_printed():
    lines = done("--client", "alice").stdout.replace("\\\n", " ").splitlines()
    words = shlex.split(next(line for line in lines if line.lstrip().startswith("grpcurl")))
    async with serving(Path("devcerts")) as target:
        own = {"grpcurl": GRPCURL, "protos": str(PROTOS), "localhost:50051": target}
        process = await asyncio.create_subprocess_exec(
            *(own.get(word, word) for word in words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert b"mtls:spiffe://dev.local/alice" in out


async def test_grpc_accepts_the_certificates_by_address_too():
    done()
    folder = Path("devcerts")
    own = [(folder / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem")]
    async with serving(folder) as target:
        for host in ("localhost", "127.0.0.1"):
            credentials = grpc.ssl_channel_credentials(*own)
            address = f"{host}:{target.rpartition(':')[2]}"
            async with grpc.aio.secure_channel(address, credentials, (("grpc.enable_http_proxy", 0),)) as channel:
                info = await aligner_pb2_grpc.AlignerStub(channel).GetServerInfo(aligner_pb2.GetServerInfoRequest(), timeout=30)
                assert info.version == "mtls:spiffe://dev.local/client"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_ca_signs_no_other_ca():
    root = authority()
    key = ec.generate_private_key(ec.SECP256R1())
    below = (
        x509.CertificateBuilder(
            root.certificate.subject,
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "below")]),
            key.public_key(),
            x509.random_serial_number(),
            root.certificate.not_valid_before_utc,
            root.certificate.not_valid_after_utc,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(root.key, hashes.SHA256())
    )
    lower = made.Pair(below, key)
    for name, pair in {"root": root, "below": lower, "leaf": client(lower)}.items():
        made.write(Path(), name, pair)
    command = ["openssl", "verify", "-CAfile", "root.pem", "-untrusted", "below.pem"]
    checked = subprocess.run([*command, "leaf.pem"], capture_output=True, text=True, check=False)
    assert "path length constraint exceeded" in checked.stderr
    assert subprocess.run([*command, "below.pem"], capture_output=True, check=False).returncode == 0
