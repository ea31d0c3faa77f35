"""Makes aligner_svc/engines/pocketsphinx/data/boundaries.npz from scratch.

    python tools/train_boundaries.py --hand-labelled DIR... [--sentences 1500] [--work build/boundaries]

Speech is synthesised, so that every phone boundary is known exactly and no recording's licence is
involved. Debian packages: flite (voices rms, slt, awb), festival, festvox-kallpc16k,
festvox-kdlpc16k, festvox-us-slt-hts, festlex-cmu, festlex-poslex: all under the permissive CMU and
Edinburgh licences. Sentences are drawn from the trigram model inside the pocketsphinx wheel.

Each DIR holds hand-labelled speech: NAME.json ({"words": [{"text", "start", "end"}, ...]}, seconds) and NAME.wav (16 bit,
mono). Only one number per pair of phone classes is taken from it: the median of what the network leaves, which brings the
synthesisers' notion of an edge to that of human labellers. Without a DIR the table already in the package is kept.
"""

import argparse
import io
import json
import math
import re
import subprocess
import wave
from pathlib import Path

import numpy as np
import pocketsphinx

from aligner_svc.engines.pocketsphinx import boundaries as bd

FRAME_RATE = 200
DECODER = dict(lm=None, loglevel="FATAL", samprate=16000, frate=FRAME_RATE, silprob=0.5, bestpath=False, ds=2)  # noqa: C408
FLITE = {"rms", "slt", "awb"}  # the others are festival's
SHARE = {"kal_diphone": 0.24, "ked_diphone": 0.2, "rms": 0.2, "slt": 0.14, "cmu_us_slt_arctic_hts": 0.12, "awb": 0.1}
# Symbols of the synthesisers that CMUdict lacks.
SAME_AS = {"ax": "ah", "axr": "er", "dx": "t", "el": "l", "em": "m", "en": "n", "nx": "n", "hv": "hh", "ix": "ih", "ux": "uw"}
PAUSES = {"pau", "h#", "brth", "ssil"}
DUMP = """(define (dump utt name) (let ((fd (fopen name "w")))
 (mapcar (lambda (s) (format fd "%s %f\\n" (item.name s) (item.feat s "end"))) (utt.relation.items utt 'Segment))
 (fclose fd)))"""


def sentences(rng):
    """Random word strings that follow the language model loosely: (words, text), without end."""
    home = Path(pocketsphinx.__file__).parent / "model" / "en-us"
    base = 1.0001
    model = pocketsphinx.NGramModel(pocketsphinx.Config(loglevel="FATAL"), pocketsphinx.LogMath(base), str(home / "en-us.lm.bin"))
    lines = (home / "cmudict-en-us.dict").read_text(encoding="utf-8").splitlines()
    words = [w for w in (line.split()[0] for line in lines) if re.fullmatch("[a-z]{2,}|a|i", w)]
    logp = np.array([model.prob([w]) for w in words]) * math.log(base)
    best = np.argsort(-logp)[:8000]
    p = np.exp(0.8 * logp[best])  # 0.8: rarer words, more phone pairs
    p /= p.sum()
    while True:
        said = []
        for _ in range(rng.integers(5, 13)):
            picks = rng.choice(len(best), 60, p=p)
            history = [*said[::-1], "<s>"][:2]
            score = np.array([model.prob([words[best[k]], *history]) for k in picks]) * math.log(base) - np.log(p[picks])
            weight = np.exp(0.8 * (score - score.max()))
            said.append(words[best[rng.choice(picks, p=weight / weight.sum())]])
        yield said, " ".join(w + ("," if rng.random() < 0.08 else "") for w in said).rstrip(",") + "."


def synthesise(folder, count, rng):
    """Writes NAME.wav and NAME.txt (phone and end time a line); returns [(name, words)]."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, index, scheme = sentences(rng), [], [DUMP]
    for voice, share in SHARE.items():
        if voice not in FLITE:
            scheme.append(f"(voice_{voice})")
        for i in range(round(count * share)):
            words, text = next(draw)
            name, stretch = folder / f"{voice}_{i}", rng.uniform(0.75, 1.25)
            index.append((name, words))
            if voice in FLITE:
                command = f"flite -voice {voice} --setf duration_stretch={stretch:.2f} -psdur -o {name}.wav -t"
                said = subprocess.run([*command.split(), text], capture_output=True, text=True, check=True).stdout
                Path(f"{name}.txt").write_text(said.replace(" ", "\n").replace(":", " "), encoding="utf-8")
            else:
                scheme.append(
                    f'(Parameter.set \'Duration_Stretch {stretch:.2f}) (set! u (utt.synth (Utterance Text "{text}")))'
                    f' (utt.save.wave u "{name}.wav" \'riff) (dump u "{name}.txt")'
                )
    (folder / "all.scm").write_text("\n".join(scheme), encoding="utf-8")
    subprocess.run(["festival", "-b", str(folder / "all.scm")], check=True, stderr=subprocess.DEVNULL)
    return index


def read_wav(path):
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float), file.getframerate()


def resample(x, ratio):
    n = round(len(x) * ratio)
    return np.fft.irfft(np.fft.rfft(x)[: n // 2 + 1], n) * ratio  # irfft pads with zeros where it has to


def filtered(x, response):
    """The signal with its spectrum multiplied by response(f), f from 0 to 1."""
    size = 4096 * (len(x) // 4096 + 2)  # a length that is cheap to transform
    return np.fft.irfft(np.fft.rfft(x, size) * response(np.linspace(0, 1, size // 2 + 1)), size)[: len(x)]


def distort(x, rate, rng):
    """Another speaker, room, microphone and level. Returns samples, the time factor and the lead in s."""
    factor = rng.uniform(0.86, 1.16)  # tempo, pitch and formants together
    x = resample(x, bd.SAMPLE_RATE / rate * factor)
    curve = rng.normal(0, 4, 7)
    x = filtered(x, lambda f: 10 ** (np.interp(f, np.linspace(0, 1, 7), curve) / 20))
    if rng.random() < 0.5:
        n = bd.SAMPLE_RATE // 4
        tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / bd.SAMPLE_RATE / rng.uniform(0.08, 0.35))
        tail *= 10 ** (rng.uniform(-22, -8) / 20) / np.sqrt((tail**2).sum())
        tail[0] = 1  # the direct sound
        size = 4096 * ((len(x) + n) // 4096 + 1)
        x = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)]
    before, after = rng.integers(0, int(0.4 * bd.SAMPLE_RATE), 2)
    x = np.pad(x, (before, after))
    tilt = rng.uniform(0, 0.8)
    noise = filtered(rng.standard_normal(len(x)), lambda f: np.maximum(f, 0.01) ** -tilt)
    x += noise / noise.std() * x[np.abs(x) > 0.05 * np.abs(x).max()].std() * 10 ** (-rng.uniform(18, 55) / 20)
    x *= 32000 * 10 ** rng.uniform(-1.1, -0.1) / np.abs(x).max()
    return np.rint(x).astype(np.int16), factor, before / bd.SAMPLE_RATE


def align(decoder, samples, words):
    """WordSpans and the phones of each word, or None."""
    if any(decoder.lookup_word(w) is None for w in words):
        return None
    decoder.reinit_feat()
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    try:
        decoder.process_raw(samples.tobytes(), full_utt=True)
    finally:
        decoder.end_utt()
    found = [s for s in decoder.seg() if s.word[0] not in "<[("] if decoder.hyp() else []
    if [re.sub(r"\(\d+\)$", "", s.word) for s in found] != words:
        return None
    phones = [decoder.lookup_word(s.word).split() for s in found]
    places = [(s.start_frame / FRAME_RATE, (s.end_frame + 1) / FRAME_RATE) for s in found]
    return [bd.WordSpan(*at, p[0], p[-1]) for at, p in zip(places, phones, strict=True)], phones


def matched(ours, theirs):
    """Which of their phones each of ours is: {ours: theirs}, and the cost (edit distance by class)."""

    def cost(a, b):
        ca, cb = bd.CLASS_OF[a], bd.CLASS_OF.get(b, 0)
        return 0.0 if a == b else 0.4 if ca == cb or min(ca, cb) >= 8 else 1.5

    n, m = len(ours), len(theirs)
    table = [[float(i + j) for j in range(m + 1)] for i in range(n + 1)]
    for i, a in enumerate(ours):
        for j, b in enumerate(theirs):
            table[i + 1][j + 1] = min(table[i][j] + cost(a, b), table[i][j + 1] + 1, table[i + 1][j] + 1)
    pairs, i, j = {}, n, m
    while i and j:
        if table[i][j] == table[i - 1][j - 1] + cost(ours[i - 1], theirs[j - 1]):
            i, j = i - 1, j - 1
            pairs[i] = j
        elif table[i][j] == table[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
    return pairs, table[n][m]


def true_times(path, phones, factor, lead):
    """(start, end) of every word from the synthesiser's own phones, NaN where a phone has no match; None if too few do."""
    said, begin = [], 0.0
    for name, at in map(str.split, Path(path).read_text(encoding="utf-8").strip().split("\n")):
        end = float(at) * factor + lead
        if name not in PAUSES:
            said.append((SAME_AS.get(name, name).upper(), begin, end))
        begin = end
    flat = [p for word in phones for p in word]
    pairs, cost = matched(flat, [s[0] for s in said])
    if cost > 0.25 * len(flat):  # the synthesiser pronounced something else
        return None
    times, k = [], 0
    for word in phones:
        last = k + len(word) - 1
        times.append((said[pairs[k]][1] if k in pairs else math.nan, said[pairs[last]][2] if last in pairs else math.nan))
        k = last + 1
    return times


def lesson(samples, spans, times):
    """Spectrum, decoder times, phone classes and true times of the edges of one recording."""
    edges, truth = bd.edges_of(spans), []
    for e in edges:
        end = times[e.ends][1] if e.ends is not None else math.nan
        start = times[e.starts][0] if e.starts is not None else math.nan
        if e.ends is None or e.starts is None:
            truth.append(start if e.ends is None else end)
        else:  # one edge to us, a pause to them: no single right answer
            truth.append((start + end) / 2 if abs(start - end) <= 0.03 else math.nan)
    return bd.spectrum(samples), np.array([e.time for e in edges]), bd.class_pairs(edges), np.array(truth)


def train(lessons, seed, *, hidden=128, epochs=40, batch=256, drop=0.3, decay=0.01):
    """A softmax over bd.BINS, trained by AdamW on blurred truths, from places up to 30 ms beside the decoder's."""
    rng = np.random.default_rng(seed)
    wide, n_out = len(bd.FRAME_OFFSETS) * bd.BANDS, len(bd.BINS)
    n_in = wide + 2 * bd.N_CLASSES
    w0, w1 = rng.normal(0, (2 / n_in) ** 0.5, (n_in, hidden)), rng.normal(0, 0.3 / hidden**0.5, (hidden, n_out))
    p = [x.astype(np.float32) for x in (w0, np.zeros(hidden), w1, np.zeros(n_out))]
    first, second, step = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p], 0
    for epoch in range(epochs):
        if epoch % 3 == 0:
            xs, ys = [], []
            for bands, at, pairs, truth in lessons:
                known = np.abs(truth - at) < 0.09  # further off, the decoder was lost
                asked = (at + rng.uniform(-0.03, 0.03, len(at)))[known]
                xs.append(bd.features(bands, asked, pairs[known]))
                ys.append(truth[known] - asked)
            x, y = np.concatenate(xs), np.concatenate(ys)
            goal = np.exp(-0.5 * ((y[:, None] - bd.BINS) / 0.006) ** 2) + 1e-6
            goal = (goal / goal.sum(1, keepdims=True)).astype(np.float32)
        rate = 1e-3 * (1 - epoch / epochs) + 1e-5
        order = rng.permutation(len(x))
        for k in range(0, len(x) - batch + 1, batch):
            rows = order[k : k + batch]
            seen = x[rows]
            seen[:, :wide] *= 1 + 0.2 * rng.standard_normal((batch, 1), dtype=np.float32)
            seen[:, :wide] += 0.15 * rng.standard_normal((batch, wide), dtype=np.float32)
            kept = (rng.random((batch, hidden), dtype=np.float32) > drop) / np.float32(1 - drop)
            act = np.maximum(seen @ p[0] + p[1], 0) * kept
            score = act @ p[2] + p[3]
            weight = np.exp(score - score.max(1, keepdims=True))
            delta = (weight / weight.sum(1, keepdims=True) - goal[rows]) / batch
            back = (delta @ p[2].T) * (act > 0) * kept
            step += 1
            for i, g in enumerate((seen.T @ back, back.sum(0), act.T @ delta, delta.sum(0))):
                first[i] += 0.1 * (g - first[i])
                second[i] += 0.01 * (g * g - second[i])
                p[i] -= rate * first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.99**step)) + 1e-7)
                p[i] -= rate * decay * p[i] * (p[i].ndim == 2)
    return p


def left_over(refiner, decoder, folders):
    """[(class on the left, class on the right, s that the network leaves)] over hand-labelled recordings."""
    rows = []
    for label in sorted(label for folder in folders for label in folder.glob("*.json")):
        marks = json.loads(label.read_text(encoding="utf-8"))["words"]
        x, rate = read_wav(label.with_suffix(".wav"))
        samples = np.rint(np.clip(resample(x, bd.SAMPLE_RATE / rate), -32768, 32767)).astype(np.int16)
        found = align(decoder, samples, [re.sub("[^a-z']", "", m["text"].lower()) for m in marks])
        if found:
            _, at, pairs, truth = lesson(samples, found[0], [(m["start"], m["end"]) for m in marks])
            rest = truth - at - refiner.estimate(samples, bd.edges_of(found[0]))[0]
            rows += [(int(a), int(b), float(r)) for (a, b), r in zip(pairs, rest, strict=True) if abs(r) < 0.1]
    return rows


def offsets(left):
    """Median of what the network leaves, per pair of classes; pairs seen rarely lean on what either side says."""
    a, b, x = (np.array(column) for column in zip(*left, strict=True))
    overall = np.median(x)
    table = np.full((bd.N_CLASSES, bd.N_CLASSES), overall, np.float32)
    for i, j in set(zip(a.tolist(), b.tolist(), strict=True)):
        sides, both = (x[a == i], x[b == j]), x[(a == i) & (b == j)]
        guess = overall + 0.5 * sum((np.median(s) - overall) * len(s) / (len(s) + 10) for s in sides)
        table[i, j] = (len(both) * np.median(both) + 20 * guess) / (len(both) + 20)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hand-labelled", type=Path, nargs="*")
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--work", type=Path, default=Path("build/boundaries"))
    parser.add_argument("--out", type=Path, default=Path(bd.__file__).parent / "data" / "boundaries.npz")
    args = parser.parse_args()
    rng, decoder, lessons = np.random.default_rng(20), pocketsphinx.Decoder(**DECODER), []
    for name, words in synthesise(args.work, args.sentences, rng):
        for _ in range(2):
            samples, factor, lead = distort(*read_wav(f"{name}.wav"), rng)
            found = align(decoder, samples, words)
            if found and (times := true_times(f"{name}.txt", found[1], factor, lead)):
                lessons.append(lesson(samples, found[0], times))
    print(f"{len(lessons)} lessons, {sum(len(x[1]) for x in lessons)} edges", flush=True)
    nets = [train(lessons, seed) for seed in (0, 1)]  # their answers are averaged
    stored = {n: np.stack([net[i] for net in nets]).astype(np.float16) for i, n in enumerate(("w0", "b0", "w1", "b1"))}
    table = np.zeros((bd.N_CLASSES, bd.N_CLASSES), np.float32)
    if args.hand_labelled:
        np.savez(draft := io.BytesIO(), **stored, offsets=table)
        refiner = bd.BoundaryRefiner(io.BytesIO(draft.getvalue()))
        table = offsets(left_over(refiner, decoder, args.hand_labelled))
    else:
        with np.load(args.out, allow_pickle=False) as old:
            table = old["offsets"]
    np.savez(args.out, **stored, offsets=table)


if __name__ == "__main__":
    main()
