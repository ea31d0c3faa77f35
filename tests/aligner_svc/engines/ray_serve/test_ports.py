"""What the ports of Ray's processes say to a stranger, and that they are found at all."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aligner_svc.engines.ray_serve.ports import Answer, open_ports

_SERVER = """
import socket, sys
listening = socket.socket()
listening.bind((sys.argv[2], 0))
listening.listen()
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    connection.recv(100)
    connection.sendall(bytes.fromhex(sys.argv[1]))
    connection.close()
"""


@contextmanager
def a_process_of_ray(answer: bytes, host: str) -> Iterator[int]:
    """It listens, and answers everything so."""
    command = ["ray::Replica:a:b", "-c", _SERVER, answer.hex(), host]
    with subprocess.Popen(command, executable=sys.executable, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Answer.HTTP),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", Answer.GRPC),
        (b"\x15\x03\x01\x00\x02\x02\x46", Answer.SECURED),
        (b"", Answer.SECURED),
    ],
)
def test_a_port_is_judged_by_its_answer(answer: bytes, meaning: Answer) -> None:
    with a_process_of_ray(answer, "127.0.0.1") as number:
        (port,) = (port for port in open_ports() if port.number == number)
    assert (port.process, port.host, port.answer, port.everywhere) == ("Replica", "127.0.0.1", meaning, False)


def test_a_port_on_all_interfaces_is_told_apart() -> None:
    with a_process_of_ray(b"", "0.0.0.0") as number:
        assert [port.everywhere for port in open_ports() if port.number == number] == [True]


def test_ports_of_other_programs_are_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        assert mine.getsockname()[1] not in {port.number for port in open_ports()}
