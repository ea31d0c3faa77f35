"""`aligner serve`: the server in this process, or a supervisor of several that share its port."""

from __future__ import annotations

from aligner_svc.config import Settings


async def serve(settings: Settings) -> int:
    """Run until SIGTERM, SIGINT or SIGQUIT, drain, return the exit status. A second signal does not wait.

    SIGHUP reads files again, SIGUSR1 and SIGUSR2 log what every thread and task is doing: none of them ends the server.
    """
    if settings.server.processes > 1:
        from aligner_svc.processes.supervisor import supervise  # noqa: PLC0415 - it imports no gRPC server, and this no metrics

        return await supervise(settings)
    from aligner_svc.processes.lifetime import serve_alone  # noqa: PLC0415

    return await serve_alone(settings)
