"""Write docs/openapi.json, the description of /v1 over HTTP, from the proto and its comments. `--check` only compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from api_reference import ROOT, Place, read_proto
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from aligner_svc.http.form import FILE, RESPONSE_FORMAT
from aligner_svc.http.rest import ALIGNMENTS, INFO, RESPONSE_FORMATS

FILE_NAME = ROOT / "docs" / "openapi.json"
_F = FieldDescriptorProto
_TYPES: Mapping[int, dict[str, Any]] = {
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_BYTES: {"type": "string", "format": "byte"},
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": (1 << 32) - 1},
    _F.TYPE_SINT32: {"type": "integer", "minimum": -(1 << 31), "maximum": (1 << 31) - 1},
    _F.TYPE_UINT64: {"type": "string", "pattern": "^[0-9]{1,20}$", "description": "A number, as a string."},
    _F.TYPE_FLOAT: {"type": "number"},
    _F.TYPE_DOUBLE: {"type": "number"},
}
_ERRORS = {
    "400": "The request cannot be served; `reason` says why.",
    "401": "No credential, or one that is not accepted.",
    "403": "The caller may not call this.",
    "404": "There is no such path.",
    "405": "Not with this verb.",
    "408": "The body did not arrive in time.",
    "413": "More bytes than are accepted.",
    "415": "A body of another kind, or a compressed one.",
    "429": "Over the caller's quota, or the queue is full.",
    "431": "Too many or too large headers.",
    "499": "The client has gone.",
    "500": "A fault of the server.",
    "503": "The server is overloaded, or a part of it is unavailable.",
    "504": "The time of the call has passed.",
}


def document() -> dict[str, Any]:
    file, comments = read_proto()
    messages = {f".{file.package}.{message.name}": (message, (4, at)) for at, message in enumerate(file.message_type)}
    enums = {f".{file.package}.{enum.name}": enum for enum in file.enum_type}
    schemas: dict[str, Any] = {}

    def add(name: str) -> dict[str, str]:
        short = name.rpartition(".")[2]
        if short not in schemas:
            schemas[short] = {}
            if name in enums:
                schemas[short] |= {"type": "string", "enum": [value.name for value in enums[name].value]}
            else:
                message, place = messages[name]
                properties = dict(_properties(message, place))
                schemas[short] |= {"type": "object", "properties": properties, "additionalProperties": False}
        return {"$ref": f"#/components/schemas/{short}"}

    def schema(field: FieldDescriptorProto, message: DescriptorProto) -> dict[str, Any]:
        entry = next((inner for inner in message.nested_type if field.type_name.endswith(f".{message.name}.{inner.name}")), None)
        if entry is not None and entry.options.map_entry:
            return {"type": "object", "additionalProperties": schema(entry.field[1], entry)}
        one = _TYPES[field.type] if field.type in _TYPES else add(field.type_name)
        return {"type": "array", "items": one} if field.label == _F.LABEL_REPEATED else dict(one)

    def _properties(message: DescriptorProto, place: Place, *, json_names: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, field in enumerate(message.field):
            said = " ".join(comments.get((*place, 2, number), "").split())
            found = schema(field, message)
            if said and "$ref" not in found:
                found["description"] = said
            yield _json_name(field.name) if json_names else field.name, found

    request, answer = (add(f".{file.package}.{name}") for name in ("AlignRequest", "AlignResponse"))
    info = add(f".{file.package}.GetServerInfoResponse")
    config, place = messages[f".{file.package}.AlignConfig"]
    fields = {name: _as_field(found) for name, found in _properties(config, place, json_names=False) if name != "transcript"}
    form = {
        "type": "object",
        "required": [FILE, "text"],
        "additionalProperties": False,
        "properties": {
            FILE: {"type": "string", "format": "binary", "description": "The recording."},
            "text": {"type": "string", "description": "The transcript."},
            RESPONSE_FORMAT: {"type": "string", "enum": list(RESPONSE_FORMATS), "description": "json: an AlignResponse."},
            **fields,
        },
    }
    schemas["Error"] = _error()
    ok = {
        "200": {
            "description": "The words.",
            "content": {"application/json": {"schema": answer}, "text/*": {}, "application/x-subrip": {}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "aligner.v1 over HTTP",
            "version": "v1",
            "description": "When was each word of a transcript spoken in a recording? docs/http.md has examples.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}, {"key": []}, {"certificate": []}, {}],
        "paths": {
            ALIGNMENTS: {
                "post": {
                    "operationId": "align",
                    "summary": "Aligns one recording, sent whole.",
                    "parameters": [
                        {
                            "name": "connect-timeout-ms",
                            "in": "header",
                            "description": "Milliseconds that the call may take.",
                            "schema": {"type": "integer", "minimum": 1, "maximum": 9_999_999_999},
                        },
                    ],
                    "requestBody": {
                        "required": True,
                        "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": request}},
                    },
                    "responses": ok | _refusals(),
                }
            },
            INFO: {
                "get": {
                    "operationId": "info",
                    "summary": "The server's version, engine, languages and limits.",
                    "responses": {"200": {"description": "Them.", "content": {"application/json": {"schema": info}}}}
                    | _refusals(),
                }
            },
        },
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {
                "Error": {
                    "description": "Refused.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    }


def _as_field(schema: dict[str, Any]) -> dict[str, Any]:
    """Of a form, where everything is text: messages, lists and maps are JSON."""
    if "$ref" in schema and not schema["$ref"].endswith("Retiming"):
        return schema
    if "$ref" in schema or schema.get("type") in {"array", "object"}:
        said = schema.get("description", "")
        return {"type": "string", "contentMediaType": "application/json", "description": f"{said} As JSON.".strip()}
    return schema


def _refusals() -> dict[str, Any]:
    return {code: {"$ref": "#/components/responses/Error", "description": said} for code, said in _ERRORS.items()}


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    properties = {
        "code": {"type": "integer"},
        "status": text | {"description": "Of gRPC."},
        "reason": text | {"description": "Stable; to branch on."},
        "message": text | {"description": "For people."},
        "requestId": text,
        "details": {"type": "array", "items": {"type": "object"}},
    }
    error = {"type": "object", "required": list(properties), "properties": properties}
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def _json_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def main() -> int:
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        if not FILE_NAME.exists() or FILE_NAME.read_text(encoding="utf-8") != text:
            print("docs/openapi.json is not that of the proto: make docs", file=sys.stderr)
            return 1
        return 0
    FILE_NAME.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
