from aligner_svc.health.findings import Finding, Severity


def severities(found: list[Finding]) -> list[Severity]:
    return [one.severity for one in found]
