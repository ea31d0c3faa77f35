"""A real Prometheus for tests: of its own, on loopback, in a directory that goes away. Skips where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.kit.daemon import free_port
from tests.kit.waiting import WAIT_TIMEOUT, eventually_blocking

_CONFIG = """\
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: aligner
    static_configs: [{{targets: [{target}]}}]
"""


class Prometheus:
    """One server that scrapes one target twice a second."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, home: Path) -> None:
        self._process = process
        self._address = address
        self._home = home

    def query(self, promql: str) -> list[dict]:
        """The series that an expression gives now. Raises AssertionError for one that Prometheus does not take."""
        answer = self._get("query", query=promql)
        assert answer["status"] == "success", f"{promql}: {answer}"
        return answer["data"]["result"]

    def value(self, promql: str) -> float | None:
        """Of an expression that gives one series or none."""
        found = self.query(promql)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def exemplars(self, promql: str) -> list[dict]:
        now = time.time()
        return self._get("query_exemplars", query=promql, start=now - 600, end=now + 600)["data"]

    def rules(self) -> list[dict]:
        """Of all groups, with their health."""
        return [rule for group in self._get("rules")["data"]["groups"] for rule in group["rules"]]

    def scraped(self) -> None:
        """Returns once a scrape that began after this call is in. Blocks: call it beside the loop that is scraped."""
        began = time.time()
        self.until(lambda: (self.value('timestamp(up{job="aligner"} == 1)') or 0) > began, "a scrape succeeds")

    def until(self, condition, what: str) -> None:
        """Fails with Prometheus' log when `condition` does not hold in time: "not ...: `what`"."""

        def met() -> bool:
            assert self._process.poll() is None, "Prometheus ended"
            return condition()

        try:
            eventually_blocking(met, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log()}") from None

    def ready(self) -> bool:
        try:
            with urlopen(f"http://{self._address}/-/ready", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _get(self, what: str, **arguments) -> dict:
        try:
            with urlopen(f"http://{self._address}/api/v1/{what}?{urlencode(arguments)}", timeout=WAIT_TIMEOUT) as answer:
                return json.load(answer)
        except URLError as error:
            raise AssertionError(f"{arguments}: {error.read().decode() if hasattr(error, 'read') else error}") from None

    def _log(self) -> str:
        return (self._home / "log").read_text()


@contextmanager
def scraping(target: str, rules: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes HOST:PORT and works through `rules`."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Prometheus")
    home = Path(tempfile.mkdtemp(prefix="aligner-prometheus-"))
    (home / "prometheus.yaml").write_text(_CONFIG.format(rules=rules.resolve(), target=target))
    address = f"127.0.0.1:{free_port()}"
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={home / 'prometheus.yaml'}",
                f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address={address}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=log,
        )
    server = Prometheus(process, address, home)
    try:
        server.until(server.ready, "Prometheus starts")
        yield server
    finally:
        process.kill()
        process.wait(WAIT_TIMEOUT)
        shutil.rmtree(home, ignore_errors=True)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool")
    frugal = os.environ | {"GOGC": "800"}  # a fifth of its time goes to the garbage collector otherwise
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=110, env=frugal)
