"""Whether the server may and can listen on its addresses."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from aligner_svc.config import Settings
from aligner_svc.errors import StartError
from aligner_svc.health.findings import Finding, fail, ok, warn
from aligner_svc.transport.bind import Address, check_exposure, parse


def listen(settings: Settings) -> Sequence[Finding]:
    """The port of calls, and those of HTTP and metrics if there are any."""
    try:
        address = parse(settings.server.listen)
        check_exposure(address, settings)
    except StartError as error:
        return [fail("listen", str(error), "setting server.listen, or --listen")]
    reach = "on loopback only" if address.loopback else "reachable from other machines"
    found = [_port(address, f"calls on {address}, {reach}")]
    if settings.http.listen:
        try:
            http = parse(settings.http.listen)
            check_exposure(http, settings)
            found.append(_port(http, f"HTTP on {http}"))
        except StartError as error:
            found.append(fail("listen", f"HTTP: {error}", "setting http.listen"))
    if settings.metrics.listen:
        try:
            found.append(_port(parse(settings.metrics.listen), f"metrics on {settings.metrics.listen}"))
        except StartError as error:
            found.append(fail("listen", f"metrics: {error}", "setting metrics.listen"))
    return found


def _port(address: Address, what: str) -> Finding:
    if not address.port:
        return ok("listen", f"{what}: a free port")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "fine if the server is already running; else `ss -ltnp` shows which program uses it"
            return warn("listen", f"{what}: the port is taken", hint)
        reason = (error.strerror or "not possible").lower()
        return fail("listen", f"{what}: {reason}", "use an address of this machine, and without root a port above 1023")
    return ok("listen", f"{what}: the port is free")
