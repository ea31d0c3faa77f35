"""What a compiler is given computes what runs without one."""

from __future__ import annotations

import pytest
import torch

from aligner_svc.engines.qwen import glue

CPU = torch.device("cpu")


def test_heads_are_normed_weighed_and_turned() -> None:
    draw = torch.Generator().manual_seed(0)
    whole = torch.randn(7, 6, 16, generator=draw)
    weight, half = torch.randn(4, 16, generator=draw), torch.randn(7, 1, 8, generator=draw)
    cos, sin = torch.cat((half.cos(), half.cos()), -1), torch.cat((half.sin(), half.sin()), -1)
    heads = whole[:, :4]  # a part of a product, with gaps between its rows
    plain, compiled = glue.rotate(heads, weight, 1e-6, cos, sin), glue._rotate_whole(heads, weight, 1e-6, cos, sin)
    torch.testing.assert_close(plain, compiled, rtol=1e-5, atol=1e-6)
    # Turning keeps the length of what was normed to a mean square of 1, and weighed.
    unweighed = glue.rotate(heads, torch.ones(4, 16), 1e-6, cos, sin)
    torch.testing.assert_close(unweighed.square().mean(-1), torch.ones(7, 4), rtol=1e-4, atol=1e-4)


def test_a_gate_opens_for_the_other_half() -> None:
    both = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(glue.gate(both), glue._gate_whole(both))
    torch.testing.assert_close(glue.gate(both), both[:, :6].sigmoid() * both[:, :6] * both[:, 6:])


def test_nothing_is_compiled_on_a_cpu() -> None:
    assert glue.for_device(CPU, torch.float32) == glue.Glue()


def test_a_compiler_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(*_: object) -> torch.Tensor:
        raise RuntimeError("no gcc\nand more")

    monkeypatch.setattr(glue, "has_triton", lambda: True)
    monkeypatch.setattr(glue, "compiled", lambda: glue.Glue(fails, fails))
    monkeypatch.setattr(torch, "ones", lambda shape, **_: torch.zeros(shape))
    assert glue.for_device(torch.device("cuda"), torch.float32) == glue.Glue()
    assert "torch.compile is not used: no gcc" in caplog.text
