"""The files that the settings name: certificates, policy, quota classes, audit log; and the authentication methods."""

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
from aligner_svc.health import phrases
from aligner_svc.health.findings import Finding, fail, ok, skip, warn
from aligner_svc.rpc.services import SERVED
from aligner_svc.transport import certificates
from aligner_svc.wiring.auth import DEFAULT_POLICY
from interceptors.auth.policy import Policy
from interceptors.quota import classes_text
from interceptors.rules.toml_text import RulesError, read_text

_GIB, _MIB = 1 << 30, 1 << 20


def tls(settings: Settings) -> Sequence[Finding]:
    """The server's certificate and key, and the CAs of its clients."""
    paths = settings.tls
    if paths.certificate is None or paths.key is None:
        return [skip("tls", "not set: calls are in clear, which is allowed on loopback only")]
    now = time.time()
    try:
        found = certificates.read(paths.certificate, paths.key, paths.client_ca, now)
    except certificates.CertificateError as error:
        return [fail("tls", str(error), "the server does not start with it")]
    clients = f", clients need a certificate of {len(found.authorities)} CAs" if paths.client_ca is not None else ""
    subject = f"{certificates.subject(found.chain[0])}, the key belongs to it{clients}"
    return [phrases.certificate_expiry(found.expires(now) - now, subject), *readable_by_all("tls", paths.key)]


def auth(settings: Settings) -> Sequence[Finding]:
    """The authentication methods, and whether the policy is enforced."""
    methods = settings.auth.methods
    if not methods:
        return [skip("auth", "the dev profile does not authenticate callers")]
    if settings.auth.dry_run:
        hint = "unset ALIGNER_AUTH__DRY_RUN once the audit log shows only calls that should be refused"
        return [warn("auth", "the policy is a dry run: calls that it refuses are served", hint)]
    return [ok("auth", f"one of {', '.join(methods)} is required")]


def policy(settings: Settings) -> Sequence[Finding]:
    """Whether it is valid and covers the methods of the server."""
    if not settings.auth.methods:
        return [skip("policy", "not used without authentication")]
    path = settings.auth.policy
    source = f"the built-in policy ({DEFAULT_POLICY})" if path is None else str(path)
    built_in = package_files("aligner_svc.wiring").joinpath(DEFAULT_POLICY)
    try:
        Policy.parse(built_in.read_text(encoding="utf-8") if path is None else read_text(path), source, SERVED)
    except RulesError as error:
        return [fail("policy", str(error), "docs/policy.md describes the format; a running server keeps its last valid policy")]
    covers = ok("policy", f"{source} covers every method")
    return [covers] if path is None else [covers, *_writable_by_all("policy", path)]


def quotas(settings: Settings) -> Sequence[Finding]:
    """The quota classes."""
    path = settings.quota.file
    if path is None:
        if settings.server.profile == "dev":
            return [skip("quotas", "the dev profile has none unless quota.file is set")]
        return [ok("quotas", f"the built-in classes: {', '.join(classes_text.built_in().classes)}")]
    try:
        classes = classes_text.parse(read_text(path), str(path))
    except RulesError as error:
        return [fail("quotas", str(error), "docs/quotas.md describes the format")]
    return [ok("quotas", f"{path}: {', '.join(classes.classes)}"), *_writable_by_all("quotas", path)]


def audit(settings: Settings) -> Sequence[Finding]:
    """Whether the audit log can be written, has room, and is private."""
    path = settings.audit.file
    if path is None:
        if settings.server.profile == "dev":
            return [skip("audit", "the dev profile writes none unless audit.file is set")]
        return [ok("audit", "written to stdout, which has to be collected")]
    path = path.absolute()
    existing = path if path.exists() else path.parent
    problem = ""
    if path.is_dir():
        problem = f"{path} is a directory"
    elif not existing.exists():
        problem = f"{path.parent} does not exist"
    elif not os.access(existing, os.W_OK):
        problem = f"{existing} is not writable by this user"
    if problem:
        return [fail("audit", problem, "the server does not start: setting audit.file")]
    free = shutil.disk_usage(path.parent).free
    message = f"{path}, {free / _GIB:.1f} GiB free"
    if free < _GIB:
        hint = "an event takes 300 bytes; on a full disk the server goes on and loses them: free space, or rotate (docs/audit.md)"
        return [(fail if free < 64 * _MIB else warn)("audit", message, hint)]
    if path.exists() and path.stat().st_mode & stat.S_IROTH:
        return [warn("audit", message, f"every user can read who called: chmod o-r {path}")]
    return [ok("audit", message)]


def readable_by_all(check: str, path: Path) -> Sequence[Finding]:
    """A warning if other users may access a file with a secret."""
    if sys.platform == "win32" or not _mode(path) & 0o007:
        return []
    return [warn(check, f"{path} is open to every user of this machine", f"chmod 600 {path}")]


def _writable_by_all(check: str, path: Path) -> Sequence[Finding]:
    if not _mode(path) & 0o002:
        return []
    return [fail(check, f"{path} can be changed by every user of this machine", f"chmod o-w {path}")]


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0
