# ruff: noqa: RUF001  letters of other scripts
"""The published vocabulary: words become the ids that its own rule gives them, and times are the reference's."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
import torch

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.devices.preparation import Preparation
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text import model_words as words
from tests.kit import checkpoint as checkpoints
from tests.kit import qwen_material
from tests.kit.qwen_reference import Reference

pytestmark = pytest.mark.usefixtures("one_torch_thread")

_TEXTS = {
    "en": "YouTube iPhone kHz McDonald's DON'T naïve 3.14 1,000,000 U.S. eBay PhD WiFi x86 co-op",
    "de": "GmbH KfZ Straße GRÖSSE Dr.-Ing. 8:30 MwSt Fußgänger iPad",
    "fr": "l’Hôtel-de-Ville aujourd'hui ŒUVRE çà TGV n°5 1er cœur",
    "es": "¿Qué señor EE.UU. pingüino 1.000 ÑANDÚ",
    "it": "perché È l’Aquila dell'iPhone 2ª città",
    "pt": "São não JOÃO 10,50 guarda-chuva pôde",
    "ru": "МГУ ЁЖ МакДональдс кто-то ВКонтакте № 5 й и\u0306",
    "zh": "今天YouTube3点iPhone北京ＡＢＣ①",
    "yue": "呢啲OK佢話7点iPad",
    "ja": "東京スカイツリーPythonで２０２６年カﾞ",
    "ko": "안녕하세요 AI기술을 3.14는 KBS에서 \u1112\u1161\u11ab",
}
_PIECES = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""As Qwen publishes it (qwen.tiktoken's pattern)."""


class PublishedRule:
    """NFC, the pattern's pieces, then byte pairs merged in the order of merges.txt."""

    def __init__(self, folder: Path) -> None:
        self._ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        merges = [tuple(line.split(" ")) for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines()]
        self._ranks = {pair: rank for rank, pair in enumerate(merges) if len(pair) == 2}
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self._letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + nth) for nth, byte in enumerate(others)}

    def ids(self, text: str) -> list[int]:
        return [
            self._ids[token] for piece in _PIECES.findall(unicodedata.normalize("NFC", text)) for token in self._merged(piece)
        ]

    def _merged(self, piece: str) -> list[str]:
        tokens = [self._letters[byte] for byte in piece.encode()]
        while True:
            ranked = [(self._ranks[pair], at) for at, pair in enumerate(pairwise(tokens)) if pair in self._ranks]
            if not ranked:
                return tokens
            _, at = min(ranked)
            tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published configuration and tokenizer, with tiny layers."""
    return checkpoints.published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(str(folder), torch.device("cpu"), torch.float32)


@cache
def published_rule() -> PublishedRule:
    return PublishedRule(checkpoints.PUBLISHED)


@pytest.mark.parametrize("language", sorted(_TEXTS))
def test_words_become_the_ids_of_the_published_rule(loaded: checkpoint.Checkpoint, language: str) -> None:
    spoken = [token.spoken[0] for token in words.split(_TEXTS[language], language)]
    spoken += _TEXTS[language].split()  # as written too: the engine's own split leaves no punctuation
    ids = Preparation(loaded, torch.float32)(np.zeros(SAMPLE_RATE, np.int16), spoken).ids.tolist()
    prompt = [151669, *[151676] * 13, 151670]
    assert ids == prompt + [token for word in spoken for token in (*published_rule().ids(word), 151705, 151705)]


def test_more_than_the_model_has_positions_for_is_refused(loaded: checkpoint.Checkpoint) -> None:
    """8,192, as published: 3 of the prompt and 13 of a second of audio, 3 of a word."""
    prepare, second = Preparation(loaded, torch.float32), np.zeros(SAMPLE_RATE, np.int16)
    assert prepare(second, ["the"] * 2725).rows == 8190
    with pytest.raises(InvalidArgumentError, match="2726 words and this audio take 8193 positions of the model") as caught:
        prepare(second, ["the"] * 2726)
    assert caught.value.reason == "TRANSCRIPT_TOO_LONG"


def test_the_material_tells_the_rules_apart() -> None:
    """Mistral's rule, which transformers 4.57 takes for this vocabulary, splits these words elsewhere."""
    rule = published_rule()
    assert rule.ids("YouTube") != rule.ids("You") + rule.ids("Tube")
    assert rule.ids("iPhone") != rule.ids("i") + rule.ids("Phone")


def test_times_are_those_of_the_reference(folder: Path, loaded: checkpoint.Checkpoint) -> None:
    """With the published configuration, a clip of each language in one batch."""
    reference, prepare, align = Reference(folder), Preparation(loaded, torch.float32), PackedAligner(loaded)
    drawn = qwen_material.pairs(5, qwen_material.log_uniform(5, 11, 0.5, 6))
    material = [pair._replace(text=_TEXTS[pair.language]) for pair in drawn]
    spoken = [[token.spoken[0] for token in words.split(pair.text, pair.language)] for pair in material]
    batch = align([prepare(pair.samples, split) for pair, split in zip(material, spoken, strict=True)])
    wanted = [reference.logits(*pair).argmax(-1).tolist() for pair in material]
    assert [slots.classes.tolist() for slots in batch] == wanted
    assert len({found for classes in wanted for found in classes}) > 20
