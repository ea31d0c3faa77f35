"""The sounds of words: which, in order, filling the word, for words that were found alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from aligner_client import AsyncAligner, FailedPreconditionError, InvalidArgumentError, WordStatus
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, WordSpan
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phonemes import PhonemeModel
from aligner_svc.engines.pocketsphinx.phones import HeardSound, with_phones
from aligner_svc.engines.pocketsphinx.wire import TokenSpan
from aligner_svc.text.readings import of_sounds
from tests.kit.recordings import SAMPLE, TRANSCRIPT
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import serving


class Recogniser:
    """Finds two sounds in every word, 100 ms each from the beginning of the audio; no path if `lost`."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.lost = False

    def phones(self, samples, words):
        self.asked.append(list(words))
        if self.lost:
            return None
        at = [0.2 * n + 0.1 for n in range(len(words))]
        return [
            [HeardSound("ts", WordSpan(t, t + 0.1, ("T", "S"))), HeardSound("a", WordSpan(t + 0.1, t + 0.2, ("AA",)))] for t in at
        ]


def span(start: float, end: float, status: WordStatus = WordStatus.ALIGNED) -> TokenSpan:
    return TokenSpan(start, end, 0.9, 0.9, status)


def test_runs_of_found_words_are_aligned_apart_and_their_phones_fill_them() -> None:
    recogniser, refiner = Recogniser(), BoundaryRefiner()
    spans = [span(0.1, 0.3), span(0.3, 0.5), span(0.5, 0.5, WordStatus.NOT_FOUND), span(0.55, 0.8), span(1.5, 1.9)]
    tokens = [["one"], ["two"], ["absent"], ["three", "dollars"], ["four"]]
    found = with_phones(spans, np.zeros(32_000, np.int16), tokens, recogniser.phones, refiner)
    assert recogniser.asked == [["one", "two"], ["three", "dollars"], ["four"]]
    assert [len(one.phones) for one in found] == [2, 2, 0, 4, 2]
    for before, one in zip(spans, found, strict=True):
        assert (one.start, one.end) == (before.start, before.end)
        if one.phones:
            assert [phone.symbol for phone in one.phones] == ["ts", "a"] * (len(one.phones) // 2)
            assert (one.phones[0].start, one.phones[-1].end) == (one.start, one.end)
            assert all(left.end == right.start for left, right in zip(one.phones, one.phones[1:], strict=False))
            assert min(phone.end - phone.start for phone in one.phones) > 0.0149


def test_a_run_without_a_path_has_none() -> None:
    recogniser = Recogniser()
    recogniser.lost = True
    (found,) = with_phones([span(0.1, 0.3)], np.zeros(32_000, np.int16), [["one"]], recogniser.phones, BoundaryRefiner())
    assert found.phones == ()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[AsyncAligner]:
    """Of a whole service."""
    async with serving(workers=1) as running, AsyncAligner(running.address) as made:
        yield made


@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_gets_them_with_the_name_of_their_set(client: AsyncAligner) -> None:
    plain = await client.align(SAMPLE, TRANSCRIPT)
    answer = await client.align(SAMPLE, TRANSCRIPT, detail="phones")
    assert answer.phone_set == "ARPABET"
    assert [word.start for word in answer.words] == [word.start for word in plain.words]
    began = next(word for word in answer.words if word.text == "began")
    assert [phone.symbol for phone in began.phones] == ["B", "IY", "G", "AE", "N"]
    assert (began.phones[0].start, began.phones[-1].end) == (began.start, began.end)
    assert answer.to_textgrid().count('name = "phones"') == 1
    assert len(answer.render("phone-ctm").splitlines()) == sum(len(word.phones) for word in answer.words)
    assert '"phones"' in answer.to_json()
    assert not plain.phone_set
    assert not any(word.phones for word in plain.words)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_word_is_said_as_the_caller_says(client: AsyncAligner) -> None:
    strange = TRANSCRIPT.replace("wizard", "Qzxv")
    said = {"qzxv": "W IH1 Z ER0 D"}
    plain = await client.align(SAMPLE, TRANSCRIPT)
    answer = await client.align(SAMPLE, strange, pronunciations=said, detail="phones")
    word = next(word for word in answer.words if word.text == "Qzxv")
    wizard = next(word for word in plain.words if word.text == "wizard")
    assert (word.start, word.end) == pytest.approx((wizard.start, wizard.end), abs=0.002)
    assert [phone.symbol for phone in word.phones] == said["qzxv"].translate(str.maketrans("", "", "012")).split()
    with pytest.raises(InvalidArgumentError) as refused:
        await client.align(SAMPLE, strange, pronunciations={"qzxv": "W IX"})
    assert refused.value.reason == "PRONUNCIATION_INVALID"
    assert "'IX'" in refused.value.message


def test_a_given_pronunciation_is_what_is_looked_for_by_both_recognisers() -> None:
    word = of_sounds(["W", "IH", "Z", "ER", "D"])
    assert Speller().phones(word) == ("W", "IH", "Z", "ER", "D")
    model = PhonemeModel()
    assert len(model.spell(word)) >= 5


async def test_an_engine_that_has_none_says_so() -> None:
    async with serving(engine=ScriptedEngine()) as running, AsyncAligner(running.address) as client:
        with pytest.raises(FailedPreconditionError) as unknown:
            await client.align(SAMPLE, TRANSCRIPT, pronunciations={"wizard": "W IH Z ER D"})
        assert unknown.value.reason == "PRONUNCIATIONS_UNSUPPORTED"
        with pytest.raises(FailedPreconditionError) as refused:
            await client.align(SAMPLE, TRANSCRIPT, detail="phones")
        assert refused.value.reason == "PHONES_UNSUPPORTED"
