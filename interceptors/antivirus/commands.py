"""The VERSION command of clamd through the `clamd` package, which blocks: in a thread. Imported only where it is used."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import clamd

from interceptors.antivirus.address import TcpAddress, UnixAddress


class Commands(clamd.ClamdNetworkSocket):  # type: ignore[misc]  # the package has no annotations
    """For one command. The package itself connects without a timeout and to IPv4 only, and reads for as long as data arrives."""

    def __init__(self, address: UnixAddress | TcpAddress, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._address = address
        self._given_up = False

    def give_up(self) -> None:
        """From another thread: end whatever the command's thread waits for."""
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
    """The reply to VERSION. Raises TimeoutError, and OSError for any other failure."""
    commands = Commands(address, timeout)
    try:
        async with asyncio.timeout(timeout):
            return str(await asyncio.to_thread(commands.version))
    except (clamd.ClamdError, UnicodeDecodeError) as error:
        raise OSError(type(error).__name__) from None
    finally:
        commands.give_up()
