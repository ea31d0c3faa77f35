"""A form (multipart/form-data) as an AlignRequest: one file, and the fields of AlignConfig by their names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.http.body import malformed
from aligner_svc.http.json_messages import parsed, strict, with_audio

FILE: Final = "file"
RESPONSE_FORMAT: Final = "response_format"
_TEXT: Final = "text"
_OTHER_NAMES: Final = {_TEXT: "transcript", "audio": FILE}
_FIELDS: Final = pb.AlignConfig.DESCRIPTOR.fields_by_name
_NAMES: Final = frozenset({*_FIELDS, FILE, RESPONSE_FORMAT})
_NAME: Final = re.compile(rb";\s*name\s*=", re.IGNORECASE)
_MAX_BOUNDARY: Final = 70
_MAX_HEADERS, _MAX_HEADER = 8, 1024
_MAX_FIELD: Final = 256 * 1024
"""Bytes of a field other than the transcript: a thousand pronunciations."""


class AlignForm:
    """The values of one form, in bytes. `feed` it the body."""

    def __init__(self, boundary: bytes, transcript_bytes: int) -> None:
        """Raises CallRefusedError."""
        if not 0 < len(boundary) <= _MAX_BOUNDARY:
            raise malformed("the form's Content-Type needs a boundary of 1 to 70 characters")
        self._most = {FILE: 1 << 62, "transcript": transcript_bytes}
        self._values: dict[str, list[bytes]] = {}
        self._left = 0
        self._name = ""
        self._header = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_end": self._on_end,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER,
        )
        self._pending = b""

    async def feed(self, parts: AsyncIterator[bytes]) -> None:
        """The whole body. Raises CallRefusedError."""
        async for part in parts:
            if self._ended:
                raise malformed("the body goes on after the form")
            try:
                self._parser.write(part)
            except FormParserError:
                raise malformed("the body is not a form of its boundary") from None
            await asyncio.sleep(0)  # a form made to be slow takes 2 ms for 64 KB
        if not self._ended:
            raise malformed("the form is not complete")

    def request(self) -> tuple[bytes, pb.AlignConfig, str]:
        """The AlignRequest in bytes, its config, and the format of the response ("json"). Raises CallRefusedError."""
        audio = b"".join(self._values.pop(FILE, []))
        try:
            texts = {name: b"".join(value).decode("utf-8") for name, value in self._values.items()}
        except UnicodeDecodeError:
            raise malformed("a field of the form is not UTF-8") from None
        wanted = texts.pop(RESPONSE_FORMAT, "json")
        config = pb.AlignConfig()
        parsed({name: _value(_FIELDS[name], text) for name, text in texts.items()}, config)
        rest = pb.AlignRequest(config=config).SerializeToString()
        return with_audio(rest, pb.AlignRequest(), audio), config, wanted

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._pending += data[start:end]

    def _on_header(self) -> None:
        self._headers.append((self._header.lower(), self._pending))
        self._header = self._pending = b""

    def _on_headers(self) -> None:
        found = [value for name, value in self._headers if name == b"content-disposition"]
        kind, options = parse_options_header(found[0].decode("latin-1")) if len(found) == 1 else (b"", {})
        if found and len(_NAME.findall(found[0])) != 1:
            raise malformed("a part of the form has to have one name")
        name = options.get(b"name", b"").decode("latin-1")
        name = _OTHER_NAMES.get(name, name)
        if kind != b"form-data" or name not in _NAMES:
            raise malformed(f"a part of the form is neither {FILE}, {_TEXT}, {RESPONSE_FORMAT} nor a field of AlignConfig")
        if name in self._values:
            raise malformed(f"the form has {name} twice")
        self._name, self._left = name, self._most.get(name, _MAX_FIELD)
        self._values[name] = []

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._left -= end - start
        if self._left < 0:
            raise malformed(f"{self._name} of the form is too long")
        self._values[self._name].append(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def _value(field: FieldDescriptor, text: str) -> Any:
    """As protobuf's JSON has it: numbers may be strings, messages, maps and lists are JSON."""
    return strict(text) if field.type == FieldDescriptor.TYPE_MESSAGE or field.is_repeated else text


__all__ = ["FILE", "RESPONSE_FORMAT", "AlignForm", "parse_options_header"]
