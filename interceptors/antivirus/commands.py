"""Status commands of clamd through the `clamd` package, which blocks: in a thread. Imported where they are used alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import clamd

from interceptors.antivirus.address import TcpAddress, UnixAddress

TEST_VIRUS = bytes(clamd.EICAR)
"""EICAR, harmless, and known to every scanner. The package has it in base64, so that no scanner objects to the file."""


class Commands(clamd.ClamdNetworkSocket):  # type: ignore[misc]  # the package has no annotations
    """One object for one command. The package connects without a time-out, to IPv4 alone, and reads for as long as it is fed."""

    def __init__(self, address: UnixAddress | TcpAddress, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._address = address
        self._given_up = False

    def give_up(self) -> None:
        """From another thread: ends whatever this one waits for."""
        self._given_up = True
        with contextlib.suppress(AttributeError, OSError):
            self.clamd_socket.shutdown(socket.SHUT_RDWR)

    def _init_socket(self) -> None:
        try:
            self.clamd_socket = self._connect()
        except OSError as error:
            raise clamd.ConnectionError(type(error).__name__) from None
        if self._given_up:
            self.give_up()

    def _connect(self) -> socket.socket:
        match self._address:
            case TcpAddress(host, port):
                return socket.create_connection((host, port), self.timeout)
            case UnixAddress(path):
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    connection.settimeout(self.timeout)
                    connection.connect(path)
                except OSError:
                    connection.close()
                    raise
                return connection


async def version(address: UnixAddress | TcpAddress, timeout: float) -> str:  # noqa: ASYNC109 - it ends the thread as well
    """The answer to VERSION. Raises TimeoutError, and OSError for whatever else goes wrong."""
    commands = Commands(address, timeout)
    try:
        async with asyncio.timeout(timeout):
            return str(await asyncio.to_thread(commands.version))
    except (clamd.ClamdError, UnicodeDecodeError) as error:
        raise OSError(type(error).__name__) from None
    finally:
        commands.give_up()
