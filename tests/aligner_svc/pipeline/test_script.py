"""A transcript that comes in pieces is the transcript that comes whole."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.config.limits import Limits
from aligner_svc.domain import Token, WordStatus
from aligner_svc.engines.base import EngineResult, Span
from aligner_svc.pipeline.script import Script
from aligner_svc.pipeline.words import words_of
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words

TEXT = 'A: He said, "Don\'t you dare."  [laughs] And then -- then she left; 1 000 of them, in straße and Zürich.'


class Splitter:
    async def tokenise(self, transcript: str, language: str):
        return words(transcript, tokenise, language)


async def split(pieces: list[str]) -> list[Token]:
    """With the engine asking for more after every piece."""
    script = Script(Splitter(), "en", Limits())  # type: ignore[arg-type]
    for piece in pieces:
        script.add(piece)
        await script.more()
    script.ended = True
    await script.more()
    return list(script._tokens)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=6).map(sorted))
async def test_any_cut_gives_the_same_offsets(cuts):
    pieces = [TEXT[start:end] for start, end in zip([0, *cuts], [*cuts, len(TEXT)], strict=True)]
    found = await split(pieces)
    assert [token.text for token in found if not token.skipped] == [
        TEXT[t.char_start : t.char_end] for t in found if not t.skipped
    ]
    covered = "".join(TEXT[token.char_start : token.char_end] for token in found)
    assert [c for c in covered if c.isalnum()] == [c for c in TEXT if c.isalnum()]
    spoken = [token for token in found if token.spoken]
    assert [token.char_start for token in spoken] == sorted({token.char_start for token in spoken})


async def test_a_last_word_that_may_go_on_waits_and_a_sentence_does_not():
    script = Script(Splitter(), "en", Limits())  # type: ignore[arg-type]
    script.add("She had your da")
    assert [token.text for token in await script.more()] == ["She", "had", "your"]
    assert await script.more() == ()
    script.add("rk suit.")
    assert [token.text for token in await script.more()] == ["dark", "suit"]


async def test_words_carry_the_speaker_of_the_last_label_and_so_do_those_of_a_whole_transcript():
    text = "Well. MARY: Yes. [coughs] Go.\nJOHN: No."
    expected = [
        ("Well", ""),
        ("MARY:", "MARY"),
        ("Yes", "MARY"),
        ("[coughs]", "MARY"),
        ("Go", "MARY"),
        ("JOHN:", "JOHN"),
        ("No", "JOHN"),
    ]
    script = Script(Splitter(), "en", Limits())  # type: ignore[arg-type]
    script.add(text)
    script.ended = True
    spoken = await script.more()
    spans = [Span(n, n + 1, 0.9, WordStatus.ALIGNED) for n in range(len(spoken))]
    assert [(word.text, word.speaker) for word in script.words(spans)] == expected
    whole = words_of(await split([text]), EngineResult(spans, match_score=1.0))
    assert [(word.text, word.speaker) for word in whole] == expected


async def test_words_are_pronounced_as_the_caller_says():
    script = Script(Splitter(), "en", Limits(), {"yes": "=Y=EH=S"})  # type: ignore[arg-type]
    script.add("Yes, no.")
    assert [token.spoken for token in await script.more()] == [("=Y=EH=S",), ("no",)]


async def test_what_is_not_spoken_comes_with_the_words_around_it():
    script = Script(Splitter(), "en", Limits())  # type: ignore[arg-type]
    script.add("[laughs] Yes. [coughs] ")
    (spoken,) = await script.more()
    assert spoken.text == "Yes"
    ready = script.words([Span(1.0, 1.5, 0.9, WordStatus.ALIGNED)])
    assert [(word.text, word.start) for word in ready] == [("[laughs]", 0.0), ("Yes", 1.0), ("[coughs]", 1.5)]
