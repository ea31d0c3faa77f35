"""Where the server would listen, and whether it may and can."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from aligner_svc.config import Settings
from aligner_svc.errors import StartError
from aligner_svc.health.findings import Finding, Severity
from aligner_svc.transport.bind import Address, check_exposure, parse


def listen(settings: Settings) -> Sequence[Finding]:
    """The port of calls, and that of metrics if there is one."""
    try:
        address = parse(settings.server.listen)
        check_exposure(address, settings)
    except StartError as error:
        return [Finding("listen", Severity.FAIL, str(error), "setting server.listen, or --listen")]
    where = "loopback alone" if address.loopback else "other machines can reach it"
    found = [_port("listen", address, f"calls on {address}, {where}")]
    metrics = getattr(getattr(settings, "metrics", None), "listen", None)
    if metrics:
        try:
            found.append(_port("listen", parse(str(metrics)), f"metrics on {metrics}"))
        except StartError as error:
            found.append(Finding("listen", Severity.FAIL, f"metrics: {error}", "setting metrics.listen"))
    return found


def _port(check: str, address: Address, what: str) -> Finding:
    if not address.port:
        return Finding(check, Severity.OK, f"{what}: a free port")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "right if a server runs already; else another program has it: `ss -ltnp` names it"
            return Finding(check, Severity.WARN, f"{what}: the port is taken", hint)
        reason = (error.strerror or "not possible").lower()
        return Finding(
            check, Severity.FAIL, f"{what}: {reason}", "an address of this machine, and a port above 1023 without root"
        )
    return Finding(check, Severity.OK, f"{what}: the port is free")
