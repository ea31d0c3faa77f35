"""POST /v1/audio/alignments with JSON or a form, and GET /v1/info."""

from __future__ import annotations

import json
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import aio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.formats import Format, render
from aligner_client.messages import read_response
from aligner_svc.http.body import malformed
from aligner_svc.http.context import Metadata
from aligner_svc.http.errors import challenge, document, http_status
from aligner_svc.http.form import AlignForm, parse_options_header
from aligner_svc.http.json_messages import from_json
from aligner_svc.http.wire import Headers, Wire, passed_on, refused_type
from aligner_svc.rpc.services import ALIGNER
from aligner_svc.transport.listener import UNKNOWN
from aligner_svc.workers.threads import off_loop
from interceptors.calls.outcome import reason_in

ALIGNMENTS: Final = "/v1/audio/alignments"
INFO: Final = "/v1/info"
_JSON: Final = "application/json"
_TYPES: Final = {
    Format.SRT: "application/x-subrip; charset=utf-8",
    Format.VTT: "text/vtt; charset=utf-8",
    Format.WORD_VTT: "text/vtt; charset=utf-8",
    Format.CSV: "text/csv; charset=utf-8",
    Format.ASS: "text/plain; charset=utf-8",
    Format.TEXTGRID: "text/plain; charset=utf-8",
    Format.CTM: "text/plain; charset=utf-8",
    Format.AUDACITY: "text/plain; charset=utf-8",
}
"""What a form may ask for, beside the JSON of the API. No page: a browser would run it under the address of the service."""
_BY_NAME: Final = {format.value: format for format in _TYPES}
RESPONSE_FORMATS: Final = ("json", *_BY_NAME)


class Unary(Wire):
    """One message each way, as JSON."""

    answer: Message | None = None

    async def send(self, message: Message) -> None:
        self.answer = message

    async def end(self, status: status_pb2.Status | None, trailing: Metadata) -> None:
        headers = passed_on(trailing)
        if status is not None:
            await self.answering.respond(*self.refusal(status, headers))
            return
        assert self.answer is not None
        kind, body = await self.rendered(self.answer)
        await self.answering.respond(200, [*headers, ("content-type", kind)], body)

    def refusal(self, status: status_pb2.Status, headers: Headers) -> tuple[int, Headers, bytes]:
        """The answer of a call that failed: status, headers and body."""
        reason, code = reason_in(status), http_status(status)
        headers = [*headers, ("content-type", _JSON)]
        if code == 401:
            headers.append(("www-authenticate", challenge(reason)))
        return code, headers, document(status, dict(headers).get("x-request-id", ""))

    async def rendered(self, answer: Message) -> tuple[str, bytes]:
        """Its content type and the body."""
        words = len(answer.words) if isinstance(answer, pb.AlignResponse) else 0
        return _JSON, await off_loop(to_json, answer, words=words)


class Align(Unary):
    """POST /v1/audio/alignments."""

    method = f"/{ALIGNER}/Align"
    _config: pb.AlignConfig | None = None
    _format: Format | None = None
    """None: the JSON of the API."""

    async def read(self) -> Any:
        self.check_headers()
        kind, options = parse_options_header(self.asked.header("content-type"))
        if kind == b"application/json":
            return await from_json(await self.body.whole(self.sizes.json_bytes), pb.AlignRequest(), self.sizes.transcript_chars)
        if kind != b"multipart/form-data":
            raise refused_type("send multipart/form-data or application/json")
        if self.asked.header("content-type").lower().count("boundary=") != 1:
            raise malformed("a form has one boundary")
        form = AlignForm(options.get(b"boundary", b""), 4 * self.sizes.transcript_chars + 4)
        await form.feed(self.body.parts(self.sizes.message_bytes))
        message, self._config, wanted = form.request()
        if wanted != "json":
            self._format = _BY_NAME.get(wanted)
            if self._format is None:
                raise malformed(f"response_format has to be one of {', '.join(RESPONSE_FORMATS)}")
        return message

    async def rendered(self, answer: Message) -> tuple[str, bytes]:
        config, format = self._config, self._format
        if format is None or config is None or not isinstance(answer, pb.AlignResponse):
            return await super().rendered(answer)
        return _TYPES[format], await off_loop(_file, answer, config, format, words=len(answer.words))


class Info(Unary):
    """GET /v1/info."""

    method = f"/{ALIGNER}/GetServerInfo"

    async def read(self) -> Any:
        self.check_headers()
        return await self.body.whole(0)


class Nothing(Unary):
    """A path that is not served: the guards refuse it, in the form of a caller that is told no more than others."""

    method = UNKNOWN

    async def read(self) -> Any:
        return aio.EOF

    def refusal(self, status: status_pb2.Status, headers: Headers) -> tuple[int, Headers, bytes]:
        code, headers, body = super().refusal(status, headers)
        allowed = {ALIGNMENTS: "POST", INFO: "GET"}.get(self.asked.target)
        if code != 404 or allowed is None:
            return code, headers, body
        return 405, [*headers, ("allow", allowed)], document(status, dict(headers).get("x-request-id", ""), 405)


def to_json(message: Message) -> bytes:
    """Protobuf's JSON, with fields that are 0: a first word may begin there."""
    tree = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()


def _file(answer: pb.AlignResponse, config: pb.AlignConfig, wanted: Format) -> bytes:
    return render(read_response(answer, config), wanted, transcript=config.transcript).encode()
