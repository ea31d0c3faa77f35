"""Files the settings name: certificates, policy, quota classes, the audit log; and whether the methods of proof fit together."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path

from aligner_svc.config import Settings
from aligner_svc.health import phrases as words
from aligner_svc.health.findings import Finding, Severity
from aligner_svc.rpc.services import SERVED
from aligner_svc.transport import certificates
from aligner_svc.wiring.auth import DEFAULT_POLICY
from interceptors.auth.policy import Policy
from interceptors.quota import classes_text
from interceptors.rules.toml_text import RulesError, read_text

_GIB, _MIB = 1 << 30, 1 << 20


def tls(settings: Settings) -> Sequence[Finding]:
    """The server's certificate and key, and the CAs of clients."""
    wanted = settings.tls
    if wanted.certificate is None or wanted.key is None:
        return [Finding("tls", Severity.SKIP, "not set: calls are in clear, which loopback alone allows")]

    now = time.time()
    try:
        found = certificates.read(wanted.certificate, wanted.key, wanted.client_ca, now)
    except certificates.CertificateError as error:
        return [Finding("tls", Severity.FAIL, str(error), "the server would not start with it")]
    clients = f", clients need a certificate of {len(found.authorities)} CAs" if wanted.client_ca is not None else ""
    said = f"{certificates.subject(found.chain[0])}, the key belongs to it{clients}"
    return [words.certificate_ends(found.expires(now) - now, said), *readers("tls", wanted.key)]


def auth(settings: Settings) -> Sequence[Finding]:
    """What proves who calls, and what each method of proof needs."""
    methods = settings.auth.methods
    if not methods:
        if settings.server.profile == "dev":
            return [Finding("auth", Severity.SKIP, "the dev profile asks nobody who they are")]
        return [
            Finding("auth", Severity.FAIL, "the prod profile needs a method", "set ALIGNER_AUTH__METHODS: mtls, jwt, api_key")
        ]
    missing = []
    if "jwt" in methods and not settings.jwt.issuers:
        missing.append(Finding("auth", Severity.FAIL, "jwt, and no issuer is believed", "set ALIGNER_JWT__ISSUERS"))
    if "mtls" in methods and settings.tls.client_ca is None:
        missing.append(Finding("auth", Severity.FAIL, "mtls, and no certificate is asked for", "set ALIGNER_TLS__CLIENT_CA"))
    if settings.auth.dry_run:
        hint = "unset ALIGNER_AUTH__DRY_RUN once the audit log has nothing but what should be refused"
        missing.append(Finding("auth", Severity.WARN, "the policy is a dry run: what it refuses is let through", hint))
    return missing or [Finding("auth", Severity.OK, f"proof is one of {', '.join(methods)}")]


def policy(settings: Settings) -> Sequence[Finding]:
    """Whether it can be read, and means what the server serves."""
    if not settings.auth.methods:
        return [Finding("policy", Severity.SKIP, "nobody is asked who they are, so nothing is granted")]

    path = settings.auth.policy
    source = str(path) if path is not None else f"the built-in policy ({DEFAULT_POLICY})"
    try:
        built_in = package_files("aligner_svc.wiring").joinpath(DEFAULT_POLICY)
        text = read_text(path) if path is not None else built_in.read_text(encoding="utf-8")
        Policy.parse(text, source, SERVED)
    except RulesError as error:
        return [
            Finding("policy", Severity.FAIL, str(error), "docs/policy.md has the form; a running server keeps the one it has")
        ]
    return [
        Finding("policy", Severity.OK, f"{source} covers every method"),
        *(_writers("policy", path) if path is not None else []),
    ]


def quotas(settings: Settings) -> Sequence[Finding]:
    """The classes of callers."""
    path = settings.quota.file
    if path is None:
        if settings.server.profile == "dev":
            return [Finding("quotas", Severity.SKIP, "the dev profile has none unless quota.file is set")]
        return [Finding("quotas", Severity.OK, f"the built-in classes: {', '.join(classes_text.built_in().classes)}")]
    try:
        classes = classes_text.parse(read_text(path), str(path))
    except RulesError as error:
        return [Finding("quotas", Severity.FAIL, str(error), "docs/quotas.md has the form")]
    return [Finding("quotas", Severity.OK, f"{path}: {', '.join(classes.classes)}"), *_writers("quotas", path)]


def audit(settings: Settings) -> Sequence[Finding]:
    """Whether events can be written, and for how long."""
    path = settings.audit.file
    if path is None:
        if settings.server.profile == "dev":
            return [Finding("audit", Severity.SKIP, "the dev profile writes none unless audit.file is set")]
        return [Finding("audit", Severity.OK, "to stdout, which somebody has to keep")]
    path = path.absolute()
    there = path if path.exists() else path.parent
    if path.is_dir() or not there.exists():
        said = f"{path} is a directory" if path.is_dir() else f"{path.parent} is not there"
        return [Finding("audit", Severity.FAIL, said, "the server would not start: setting audit.file")]
    if not os.access(there, os.W_OK):
        return [
            Finding("audit", Severity.FAIL, f"{there} may not be written by this user", "the server would not start: audit.file")
        ]
    free = shutil.disk_usage(path.parent).free
    said = f"{path}, {free / _GIB:.1f} GiB free"
    if free < _GIB:
        hint = "an event has 300 bytes; a server on a full disk goes on and loses them: make room, rotate (docs/audit.md)"
        return [Finding("audit", Severity.FAIL if free < 64 * _MIB else Severity.WARN, said, hint)]
    readable = path.exists() and path.stat().st_mode & stat.S_IROTH
    hint = f"every user can read who called: chmod o-r {path}" if readable else ""
    return [Finding("audit", Severity.WARN if readable else Severity.OK, said, hint)]


def readers(check: str, path: Path) -> list[Finding]:
    """Whether others may read a file with a secret."""
    if sys.platform == "win32" or not _mode(path) & 0o007:
        return []
    return [Finding(check, Severity.WARN, f"{path} is open to every user of this machine", f"chmod 600 {path}")]


def _writers(check: str, path: Path) -> list[Finding]:
    if not _mode(path) & 0o002:
        return []
    return [Finding(check, Severity.FAIL, f"{path} can be changed by every user of this machine", f"chmod o-w {path}")]


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0
