"""A certificate for this pod's address, signed by the cluster's CA: Ray's nodes know each other by addresses."""

import os
from pathlib import Path

from aligner_svc.transport import devcerts

authority, own = Path("/etc/aligner-ray/ca"), Path("/etc/aligner-ray/node")
ca = devcerts.read(authority, "ca")
devcerts.write(own, "node", devcerts.peer(ca, [os.environ["POD_IP"], "127.0.0.1", "localhost"], days=365))
(own / "ca.pem").write_bytes(ca.certificate_pem)
