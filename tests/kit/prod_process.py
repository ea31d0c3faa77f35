"""`aligner serve --profile prod` as a process of its own, with everything that guards it."""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from aligner_svc.transport import devcerts
from aligner_svc.transport.devcerts import Pair
from aligner_svc.wiring.api_keys import make_pepper
from tests.kit.daemon import free_port
from tests.kit.guarded import Home
from tests.kit.http_channel import HttpChannel
from tests.kit.servers import Command, launched

_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True)
class ProdProcess:
    """A running server. `target`, `metrics` and `http` are HOST:PORT on loopback."""

    home: Home
    command: Command
    target: str
    metrics: str
    http: str

    @property
    def pid(self) -> int:
        return self.command.process.pid

    @property
    def alive(self) -> bool:
        return self.command.process.returncode is None

    def channel(self, own: Pair | None = None, *, anonymous: bool = False) -> grpc.aio.Channel:
        """With a connection of its own, and with the client's certificate where the server asks for one, or with `own`."""
        pair = own or (self.home.client if self.home.mtls and not anonymous else None)
        credentials = grpc.ssl_channel_credentials(
            self.home.ca.certificate_pem, pair.key_pem if pair else None, pair.certificate_pem if pair else None
        )
        return grpc.aio.secure_channel(f"localhost:{self.target.rpartition(':')[2]}", credentials, _OPTIONS)

    def over_http(self) -> ProdProcess:
        """The same server, whose channels call over HTTP."""
        return _OverHttp(self.home, self.command, self.target, self.metrics, self.http)

    def tls(self) -> ssl.SSLContext:
        """For raw HTTP/2, with the client's certificate."""
        context = ssl.create_default_context(cadata=self.home.ca.certificate_pem.decode())
        context.load_cert_chain(self.home.folder / "client.pem", self.home.folder / "client.key")
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        return context


class _OverHttp(ProdProcess):
    def channel(self, own: Pair | None = None, *, anonymous: bool = False) -> Any:
        pair = own or (self.home.client if self.home.mtls and not anonymous else None)
        context = ssl.create_default_context(cadata=self.home.ca.certificate_pem.decode())
        if pair is not None:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")  # a weak key is the server's to refuse
            with tempfile.TemporaryDirectory() as folder:
                devcerts.write(Path(folder), "caller", pair)
                context.load_cert_chain(f"{folder}/caller.pem", f"{folder}/caller.key")
        return HttpChannel(self.http, context)


def variables(home: Home) -> dict[str, str]:
    """The settings of `Home.parts` as environment variables."""
    at, forge = home.folder, home.forge
    issuers = [
        {"issuer": forge.issuer, "audience": ["aligner"], "jwks_file": str(at / "jwks.json")},
        {"issuer": forge.other_issuer, "audience": ["aligner"], "jwks_file": str(at / "other.json")},
    ]
    found = {
        "TLS__CERTIFICATE": at / "server.pem",
        "TLS__KEY": at / "server.key",
        "TLS__RELOAD_EVERY": 0.2,
        "AUTH__METHODS": ",".join(method for method in home.methods if home.mtls or method != "mtls"),
        "JWT__ISSUERS": json.dumps(issuers),
        "KEYS__DATABASE": home.keys.database.get_secret_value(),
        "KEYS__PEPPER_FILE": home.keys.pepper_file,
        "QUOTA__FILE": home.quotas,
        "AUDIT__FILE": home.audit,
        "SERVER__DRAIN_DELAY": 0,
        "LOGS__FORMAT": "json",
    }
    if home.mtls:
        found["TLS__CLIENT_CA"] = at / "ca.pem"
    return {f"ALIGNER_{name}": str(value) for name, value in found.items()}


@asynccontextmanager
async def prod_process(home: Home, scratch: Path, *, workers: int = 1, **settings: object) -> AsyncIterator[ProdProcess]:
    """Ready to serve. `scratch`: its working directory, TMPDIR and HOME; `settings` without the prefix, LOGS__LEVEL="debug"."""
    make_pepper(home.keys)
    metrics, http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    given = {f"ALIGNER_{name}": str(value) for name, value in settings.items()}
    where = {"TMPDIR": str(scratch), "HOME": str(scratch), "ALIGNER_METRICS__LISTEN": metrics, "ALIGNER_HTTP__LISTEN": http}
    arguments = ("--profile", "prod", "--listen", "127.0.0.1:0", "--workers", str(workers))
    async with launched(scratch, *arguments, **variables(home) | where | given) as command:
        yield ProdProcess(home, command, await command.ready(), metrics, http)
