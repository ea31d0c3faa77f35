"""Requests made from docs/openapi.json, valid and broken ones: never a fault of the server, and every answer as described."""

from __future__ import annotations

import asyncio

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from aligner_svc.config.http import HttpSettings
from aligner_svc.http.wire import TIMEOUT
from tests import PROJECT
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import serving

EXAMPLES = {"POST": 25, "GET": 3}
"""Of each operation and mode; the same ones in every run. Of GET nothing but a header varies."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [("/v1/audio/alignments", "POST"), ("/v1/info", "GET")]


@pytest.mark.filterwarnings("ignore")
async def test_the_server_is_as_its_description_says() -> None:
    schema = schemathesis.openapi.from_path(PROJECT / "docs" / "openapi.json")
    seen: set[int] = set()

    def ask(base_url: str) -> None:
        for path, verb in OPERATIONS:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                if mode is GenerationMode.NEGATIVE and verb == "GET":
                    continue  # nothing of it can be wrong

                @settings(
                    max_examples=EXAMPLES[verb],
                    derandomize=True,
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                )
                @given(schema[path][verb].as_strategy(generation_mode=mode))
                def check(case: Case) -> None:
                    if str(case.headers.get(TIMEOUT, "")).isdigit():
                        case.headers[TIMEOUT] = "60000"  # a millisecond would end in 504
                    answer = case.call(base_url=base_url, timeout=20)
                    seen.add(answer.status_code)
                    case.validate_response(answer, checks=CHECKS)

                check()

    async with serving(engine=ScriptedEngine(), http=HttpSettings(listen="127.0.0.1:0")) as server:
        await asyncio.to_thread(ask, f"http://{server.http_address}")
    assert {200, 400} <= seen
