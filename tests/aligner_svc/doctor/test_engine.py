"""Whether an engine can be loaded is found out without loading its weights."""

from __future__ import annotations

import json

from aligner_svc.config import Settings
from aligner_svc.doctor import engine
from aligner_svc.health.findings import Severity
from tests.aligner_svc.doctor import severities


def test_a_checkpoint_is_checked_without_loading_it(tmp_path) -> None:
    assert engine.checkpoint(str(tmp_path / "absent")).severity is Severity.FAIL
    assert engine.checkpoint(str(tmp_path)).severity is Severity.FAIL
    (tmp_path / "config.json").write_text("{}")
    assert "no *.safetensors" in engine.checkpoint(str(tmp_path)).message
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(8)
    (tmp_path / "model.safetensors").write_bytes(whole)
    assert engine.checkpoint(str(tmp_path)).severity is Severity.OK
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])
    assert "model.safetensors cannot be read" in engine.checkpoint(str(tmp_path)).message


def test_the_models_of_pocketsphinx_load() -> None:
    assert severities(engine.engine(Settings())) == [Severity.OK]
