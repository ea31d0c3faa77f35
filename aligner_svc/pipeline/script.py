"""A transcript as it comes: tokens for the engine, and words for the caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from aligner_svc.config.limits import Limits
from aligner_svc.domain import Token, Word, WordStatus
from aligner_svc.engines.base import LiveEngine, Span
from aligner_svc.pipeline.checks import LETTERS_A_WORD, empty, no_words, unreadable
from aligner_svc.pipeline.sounds import Given, pronounced
from aligner_svc.pipeline.words import word_of
from aligner_svc.text.characters import check_marks
from aligner_svc.text.speaking_rate import check_words
from aligner_svc.workers.threads import off_loop

_SENTENCE_ENDS: Final = (".", "!", "?")


class Script:
    """`add` as it comes.

    What has come when the engine asks for more is split at once, so that a text that comes first is read as a whole. Its last
    word may go on in the next piece: it waits for that, unless a sentence ends with it.
    """

    def __init__(self, engine: LiveEngine, language: str, limits: Limits, pronunciations: Given = MappingProxyType({})) -> None:
        self.ended = False
        self._pronunciations = pronunciations
        self.count = 0
        """Words in all."""
        self.spoken = self.letters = self.unreadable = 0
        """Words and letters that are said, and words that cannot be read."""
        self._engine = engine
        self._language = language
        self._limits = limits
        self._text = ""  # not split yet, or with a last word that may go on
        self._base = 0  # characters before it
        self._held: tuple[str, Sequence[Token]] = "", ()  # its beginning that was split, and the tokens of the last word there
        self._tokens: deque[Token] = deque()
        self._marks = 0
        self._at = 0.0
        self._speaker = ""

    def add(self, text: str) -> None:
        self._text += text

    async def more(self) -> Sequence[Token]:
        """The next tokens that have something spoken. Nothing is lost if it is cancelled."""
        (held, tokens), ended = self._held, self.ended
        if len(self._text) > len(held) and not self._text[len(held)].isspace():
            held, tokens = "", ()  # the last word went on
        elif len(self._text) == len(held) and not (ended and tokens):
            return ()
        rest = self._text[len(held) :]
        split: Sequence[Token] = ()
        cut = len(rest)
        if rest.strip():
            await off_loop(check_marks, rest, words=len(rest) // LETTERS_A_WORD)
            split = pronounced(await self._engine.tokenise(rest, self._language), self._pronunciations)
            if not (ended or rest[-1].isspace() or rest.endswith(_SENTENCE_ENDS)):
                cut -= len(rest.rsplit(None, 1)[-1])
                cut = min([cut, *(token.char_start for token in split if token.char_start < cut < token.char_end)])
        ready = [_moved(token, self._base) for token in tokens]
        ready += [_moved(token, self._base + len(held)) for token in split if token.char_end <= cut]
        self._held = rest[cut:], [_moved(token, -cut) for token in split if token.char_end > cut]
        self._text, self._base = self._text[len(held) + cut :], self._base + len(held) + cut
        return self._take(ready)

    def words(self, spans: Sequence[Span]) -> list[Word]:
        """The words of the next spoken tokens, with what is not spoken before them; without spans all that is left."""
        words: list[Word] = []
        for span in spans:
            while not self._tokens[0].spoken:
                words.append(self._unspoken())
            words.append(word_of(self._tokens.popleft(), span, self._speaker))
            self._at = span.end
        while self._tokens and (not spans or not self._tokens[0].spoken):
            words.append(self._unspoken())
        return words

    def check(self) -> None:
        """Raises InvalidArgumentError for a text without a spoken word."""
        if not self.count:
            raise empty()
        if not self.spoken:
            raise no_words(self._marks == self.count, self._language)

    def _take(self, tokens: Sequence[Token]) -> Sequence[Token]:
        self.count += len(tokens)
        check_words(self.count, self._limits.transcript_words)
        self._marks += sum(token.skipped for token in tokens)
        self.unreadable += unreadable(tokens)
        spoken = [token for token in tokens if token.spoken]
        self.spoken += sum(len(token.spoken) for token in spoken)
        self.letters += sum(len(word) for token in spoken for word in token.spoken)
        self._tokens.extend(tokens)
        return spoken

    def _unspoken(self) -> Word:
        token = self._tokens.popleft()
        absent = WordStatus.SKIPPED if token.skipped else WordStatus.NOT_FOUND
        self._speaker = token.speaker or self._speaker
        return word_of(token, Span(self._at, self._at, 0.0, absent), self._speaker)


def _moved(token: Token, characters: int) -> Token:
    """The token in a text that begins so much earlier."""
    return replace(token, char_start=token.char_start + characters, char_end=token.char_end + characters) if characters else token
