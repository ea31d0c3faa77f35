"""A CTC phoneme recogniser (hama), for second opinions.

Slower and coarser than PocketSphinx, but robust: it works in noise, and tells words that were said from words that were not.
The only module that uses hama's private names, for which its version is pinned.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import hama
import numpy as np
import numpy.typing as npt
from hama.vocab import Vocabulary

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.text.arpabet import IPA
from aligner_svc.text.readings import sounds, ways

FRAME_SECONDS = 0.02
_HOP = 320
_CHUNK_SECONDS = 5
"""Audio a run: the model takes 3.3 MB for a second of it and its context, and after 1,500 frames it truncates silently. Of 947
words of joined sentences 22 are not detected and the others 27.8 ms off; with 10 s and a context of 1 s 25 and 27.5 ms, and it
takes a fifth more time."""
_CONTEXT_SECONDS = 0.5
_MAX_WORD = 32  # letters of a word that are spelled: enough to detect it
_MIN_SAMPLES = 1600

FloatArray = npt.NDArray[np.float32]


class _IndexedVocabulary(Vocabulary):  # type: ignore[misc]
    """hama's own builds a dictionary of 19,750 entries two or three times a letter: 25-60 ms a word, instead of 5."""

    @cached_property
    def encoder_token_to_id(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.encoder)}

    @cached_property
    def decoder_token_to_id(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.decoder)}


class PhonemeModel:
    """Phoneme log-probabilities of audio, and the spelling of words in the same phonemes."""

    def __init__(self) -> None:
        self._asr = hama.ASRModel()
        self._g2p = hama.G2PModel(max_input_len=_MAX_WORD)
        self._g2p.vocab = self._g2p.tokenizer.vocab = _IndexedVocabulary(self._g2p.vocab.encoder, self._g2p.vocab.decoder)
        self.blank: int = self._asr.blank_id
        self._pieces = {piece: index for index, piece in enumerate(self._asr.decoder_tokens)}
        self._max_piece = max(map(len, self._pieces))
        self.spell = lru_cache(maxsize=20_000)(self._spell)

    def _spell(self, word: str) -> tuple[int, ...]:
        """Label ids of a word; empty if none of it can be spelled."""
        first = ways(word)[0]  # it only has to be detected
        if len(first) > 1:
            return tuple(label for part in first for label in self.spell(part))
        given = sounds(first[0])
        ipa: str = "".join(map(IPA.__getitem__, given)) if given else self._g2p.predict(first[0]).ipa
        labels: list[int] = []
        position = 0
        while position < len(ipa):
            for length in range(min(self._max_piece, len(ipa) - position), 0, -1):
                piece = self._pieces.get(ipa[position : position + length])
                if piece is not None:
                    labels.append(piece)
                    position += length
                    break
            else:
                position += 1  # a stress mark, or a sound without a label
        return tuple(labels)

    def log_probabilities(self, samples: npt.NDArray[np.int16]) -> FloatArray:
        """Shape [frames, labels], 20 ms a frame, from int16 samples at 16 kHz."""
        audio = samples.astype(np.float32) / np.float32(32768)
        chunk, context = _CHUNK_SECONDS * SAMPLE_RATE, int(_CONTEXT_SECONDS * SAMPLE_RATE)
        parts = []
        for begin in range(0, max(len(audio), 1), chunk):
            end = min(len(audio), begin + chunk)
            low, high = max(0, begin - context), min(len(audio), end + context)
            run = self._run(audio[low:high])
            skip = (begin - low) // _HOP
            keep = len(run) if end == len(audio) else skip + chunk // _HOP
            parts.append(run[skip:keep])
        return np.concatenate(parts)

    def _run(self, audio: FloatArray) -> FloatArray:
        if len(audio) < _MIN_SAMPLES:
            audio = np.pad(audio, (0, _MIN_SAMPLES - len(audio)))
        asr = self._asr
        feeds = {
            asr._waveform_input_name: audio[np.newaxis],  # noqa: SLF001
            asr._waveform_lengths_input_name: np.array([len(audio)], dtype=np.int64),  # noqa: SLF001
        }
        names = [asr._log_probs_output_name, asr._out_lengths_output_name]  # noqa: SLF001
        log_probabilities, lengths = asr.session.run(names, feeds)
        frames = int(lengths[0])
        if frames < len(audio) // _HOP:
            raise RuntimeError(f"hama returned {frames} frames for {len(audio)} samples")
        return log_probabilities[0, :frames]
