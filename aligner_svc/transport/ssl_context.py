"""The server's certificate and its clients' CAs for Python's ssl, with the same demands as gRPC's."""

from __future__ import annotations

import os
import ssl

from cryptography.hazmat.primitives.serialization import Encoding

from aligner_svc.transport.certificates import ServerFiles


def server_context(files: ServerFiles) -> ssl.SSLContext:
    """TLS 1.2 and 1.3. With CAs every client needs a certificate of one of them, in every handshake.

    No session is resumed: a resumed one would have the certificate of a CA that was removed since.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _load(context, files)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata="".join(ca.public_bytes(Encoding.PEM).decode() for ca in files.authorities))
    return context


def _load(context: ssl.SSLContext, files: ServerFiles) -> None:
    """From memory: the files may have changed since they were checked, and ssl reads files only."""
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in files.chain)
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as memory:
            memory.write(files.key_pem + chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
