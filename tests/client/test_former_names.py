"""What callers imported from the service before the client was a package of its own is the same code."""

from __future__ import annotations

import aligner_client
import aligner_client.formats
import aligner_svc.client
import aligner_svc.formats


def test_the_former_names_are_the_same_things() -> None:
    for former, now in ((aligner_svc.client, aligner_client), (aligner_svc.formats, aligner_client.formats)):
        assert {name: getattr(former, name) for name in now.__all__} == {name: getattr(now, name) for name in now.__all__}
        assert former.__all__ == now.__all__
