"""The files of the settings are checked as the server reads them."""

from __future__ import annotations

import stat
from collections import namedtuple

from aligner_svc.config import Settings
from aligner_svc.doctor import files
from aligner_svc.health.findings import Severity
from tests.aligner_svc.doctor import severities
from tests.kit import certificates

PROD = {"server": {"profile": "prod"}, "auth": {"methods": ["api_key"]}}


def test_certificates_are_checked_as_the_server_reads_them(tmp_path) -> None:
    given = certificates.Files(tmp_path)
    given.key.chmod(0o600)
    tls = {"certificate": given.certificate, "key": given.key, "client_ca": given.client_ca}
    found = files.tls(Settings(**PROD, tls=tls))
    assert severities(found) == [Severity.OK]
    assert "expires in 30 days" in found[0].message
    given.key.chmod(0o644)
    assert severities(files.tls(Settings(**PROD, tls=tls))) == [Severity.OK, Severity.WARN]
    given.write(certificates.server(given.ca, days=5))
    given.key.chmod(0o600)
    found = files.tls(Settings(**PROD, tls=tls))
    assert (severities(found), found[0].hint.startswith("renew it")) == ([Severity.WARN], True)
    given.key.write_bytes(certificates.server(given.ca).key_pem)
    (found,) = files.tls(Settings(**PROD, tls=tls))
    assert (found.severity, "does not belong" in found.message) == (Severity.FAIL, True)


def test_a_policy_that_is_not_enforced_is_a_warning() -> None:
    assert severities(files.auth(Settings())) == [Severity.SKIP]
    assert severities(files.auth(Settings(**PROD))) == [Severity.OK]
    dry_run = Settings(server={"profile": "prod"}, auth={"methods": ["api_key"], "dry_run": True})
    assert severities(files.auth(dry_run)) == [Severity.WARN]


def test_a_policy_is_checked_against_the_served_methods(tmp_path) -> None:
    path = tmp_path / "policy.toml"
    wanted = Settings(server={"profile": "prod"}, auth={"methods": ["api_key"], "policy": path})
    assert severities(files.policy(Settings(**PROD))) == [Severity.OK]
    path.write_text('[methods]\n"/aligner.v1.Aligner/Aling" = ["align"]\n')
    (found,) = files.policy(wanted)
    assert (found.severity, "Aling" in found.message) == (Severity.FAIL, True)
    path.unlink()
    (found,) = files.policy(wanted)
    assert (found.severity, str(path) in found.message) == (Severity.FAIL, True)
    path.write_bytes(b"\xff")
    assert severities(files.policy(wanted)) == [Severity.FAIL]


def test_the_audit_log_must_be_writable_private_and_have_room(tmp_path, monkeypatch) -> None:
    path = tmp_path / "audit.log"
    Usage = namedtuple("Usage", "total used free")
    for free, expected in ((1 << 40, Severity.OK), (1 << 29, Severity.WARN), (1 << 20, Severity.FAIL)):
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _, free=free: Usage(1 << 41, 0, free))
        assert severities(files.audit(Settings(audit={"file": path}))) == [expected]
    assert not path.exists()
    assert severities(files.audit(Settings(audit={"file": tmp_path}))) == [Severity.FAIL]
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: Usage(1 << 41, 0, 1 << 40))
    path.touch()
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IROTH)
    assert severities(files.audit(Settings(audit={"file": path}))) == [Severity.WARN]
