"""Makes aligner_svc/engines/pocketsphinx/data/boundaries.npz from scratch. Needs torch, and some 15 minutes of a CPU.

    python tools/train_boundaries.py --hand-labelled DIR... [--sentences 1200] [--work build/boundaries]

Speech is synthesised, so that every phone boundary is known exactly and no recording's licence is
involved. Debian packages: flite (voices rms, slt, awb), festival, festvox-kallpc16k,
festvox-kdlpc16k, festvox-us-slt-hts, festlex-cmu, festlex-poslex: all under the permissive CMU and
Edinburgh licences. Sentences are drawn from the trigram model inside the pocketsphinx wheel. A step whose
result is in --work already is not done again.

Each DIR holds hand-labelled speech: NAME.json ({"words": [{"text", "start", "end"}, ...]}, seconds) and NAME.wav (16 bit,
mono), where NAME is SPEAKER_ANYTHING. Only one number per phone class and side of an edge is taken from it: the median of what
the network leaves, which brings the synthesisers' notion of an edge to that of human labellers. The errors printed are those
with the numbers made without the speaker. Without a DIR the numbers already in the package are kept.
"""

import argparse
import io
import json
import math
import pickle
import re
import subprocess
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pocketsphinx
import torch
from torch.nn import functional

from aligner_svc.engines.pocketsphinx import boundaries as bd
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser

FRAME_RATE = 200
DECODER = dict(lm=None, loglevel="FATAL", samprate=16000, frate=FRAME_RATE, silprob=0.5, bestpath=False, ds=2)  # noqa: C408
FLITE = {"rms", "slt", "awb"}  # the others are festival's
SHARE = {"kal_diphone": 0.24, "ked_diphone": 0.2, "rms": 0.2, "slt": 0.14, "cmu_us_slt_arctic_hts": 0.12, "awb": 0.1}
# Symbols of the synthesisers that CMUdict lacks.
SAME_AS = {"ax": "ah", "axr": "er", "dx": "t", "el": "l", "em": "m", "en": "n", "nx": "n", "hv": "hh", "ix": "ih", "ux": "uw"}
NETS = 2  # whose answers are averaged
VERSIONS = ("clean", "hard")  # of every recording
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


def recorded(index, rng):
    """Every sentence by another speaker, at another microphone: [(samples, word spans, true times)], the spans as decoded."""
    decoder, found = pocketsphinx.Decoder(**DECODER), []
    for name, words in index:
        x, rate = read_wav(f"{name}.wav")
        factor = rng.uniform(0.84, 1.18)  # tempo, pitch and formants together
        x = resample(x, bd.SAMPLE_RATE / rate * factor)
        curve = rng.normal(0, 4, 7)
        x = filtered(x, lambda f: 10 ** (np.interp(f, np.linspace(0, 1, 7), curve) / 20))  # noqa: B023
        before, after = rng.integers(0, int(0.5 * bd.SAMPLE_RATE), 2)
        x = np.pad(x, (before, after))
        x *= 20000 / np.abs(x).max()
        noise = rng.standard_normal(len(x))
        level = speech_level(x) * 10 ** (-rng.uniform(28, 55) / 20)
        spans = align(decoder, np.rint(x + noise * level).astype(np.int16), words)
        if spans and (times := true_times(f"{name}.txt", [s.phones for s in spans], factor, before / bd.SAMPLE_RATE)):
            found.append((np.rint(x).astype(np.int16), spans, times))
    return found


def speech_level(x):
    return x[np.abs(x) > 0.05 * np.abs(x).max()].std()


def room(rng, t60, ratio_db):
    """An impulse response: the direct sound, and `ratio_db` below it a tail of decaying noise."""
    size = int(bd.SAMPLE_RATE * min(1.2 * t60, 1.0))
    at = np.arange(size) / bd.SAMPLE_RATE
    tail = rng.standard_normal(size) * 10 ** (-3 * at / t60) * (at >= rng.uniform(0.001, 0.008))
    if rng.random() < 0.5:  # walls absorb high frequencies
        corner = rng.uniform(0.15, 0.8)
        tail = filtered(tail, lambda f: 1 / (1 + (f / corner) ** 2))
    response = tail * np.sqrt(10 ** (-ratio_db / 10) / (tail**2).sum())
    response[0] = 1
    return response


def convolved(x, response):
    size = 4096 * ((len(x) + len(response)) // 4096 + 1)
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(response, size), size)[: len(x)]


def breathe(x, spans, rng):
    """Adds breaths and clicks where nobody speaks, in place."""
    rate, loud = bd.SAMPLE_RATE, np.abs(x).max()
    pauses = [(a.end, b.start) for a, b in pairwise(spans) if b.start - a.end > 0.08]
    for begin, end in [(0, spans[0].start), *pauses, (spans[-1].end, len(x) / rate)]:
        if rng.random() < 0.35 and end - begin > 0.1:
            seconds = rng.uniform(0.06, min(0.4, end - begin))
            at = int(rng.uniform(begin, end - seconds) * rate)
            middle = rng.uniform(0.1, 0.5)
            noise = filtered(rng.standard_normal(int(seconds * rate)), lambda f: np.exp(-(((f - middle) / 0.25) ** 2)) + 0.05)  # noqa: B023
            mix(x, at, noise / noise.std() * np.hanning(len(noise)) ** 0.5 * loud * 10 ** (-rng.uniform(22, 48) / 20))
        if rng.random() < 0.25 and end - begin > 0.05:
            at, size = int(rng.uniform(begin, end - 0.02) * rate), int(rng.uniform(0.001, 0.01) * rate)
            click = rng.standard_normal(size) * np.exp(-3 * np.arange(size) / size)
            mix(x, at, click * loud * 10 ** (-rng.uniform(15, 40) / 20))


def mix(x, at, sound):
    x[at : at + len(sound)] += sound[: len(x) - at]


def coloured(n, tilt, rng):
    return filtered(rng.standard_normal(n), lambda f: np.maximum(f, 0.01) ** -tilt)


def background(n, others, rng):
    """Coloured noise, tones that decay, or several talkers."""
    kind = rng.integers(4)
    if kind == 0:
        return coloured(n, rng.uniform(0, 0.9), rng)
    out = 1e-3 * rng.standard_normal(n)
    if kind == 1:
        at = np.arange(n) / bd.SAMPLE_RATE
        for _ in range(rng.integers(3, 8)):
            pitch, begin, decay = rng.uniform(80, 600), rng.uniform(-0.3, n / bd.SAMPLE_RATE), rng.uniform(1, 6)
            after = np.maximum(at - begin, 0)
            envelope = np.exp(-decay * after) * np.minimum(after / 0.01, 1)
            for partial in range(1, rng.integers(3, 10)):
                out += envelope * np.sin(2 * np.pi * pitch * partial * at + rng.uniform(0, 6)) / partial
        return out
    for _ in range(rng.integers(3, 8)):
        other = others[rng.integers(len(others))][0].astype(float)
        out += np.roll(np.resize(other, n), rng.integers(n))
    return out


def added(x, noise, snr_db):
    return x + noise / noise.std() * speech_level(x) * 10 ** (-snr_db / 20)


def lessons(recordings, version, rng):
    """Every recording in another room and noise, as `lesson`."""
    found = []
    for samples, spans, times in recordings:
        x = samples.astype(float)
        breathe(x, spans, rng)
        if version == "clean":
            if rng.random() < 0.5:
                x = convolved(x, room(rng, rng.uniform(0.08, 0.4), rng.uniform(6, 20)))
            x = added(x, coloured(len(x), rng.uniform(0, 0.8), rng), rng.uniform(18, 55))
        else:
            kind = rng.choice(["room", "noise", "both"], p=[0.4, 0.4, 0.2])
            if kind != "noise":
                x = convolved(x, room(rng, rng.uniform(0.15, 0.8), rng.uniform(-8, 10)))
            if kind != "room":
                x = added(x, background(len(x), recordings, rng), rng.uniform(0, 25))
            x = added(x, rng.standard_normal(len(x)), rng.uniform(25, 55))
        x *= 32000 * 10 ** rng.uniform(-1.1, -0.1) / np.abs(x).max()
        found.append((*lesson(np.rint(x).astype(np.int16), spans, times), version == "clean"))
    return found


def align(decoder, samples, words):
    """WordSpans, or None."""
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
    return [bd.WordSpan(*at, tuple(p)) for at, p in zip(places, phones, strict=True)]


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
    """Spectrum, decoder times, contexts and true times of the edges of one recording."""
    edges, truth = bd.edges_of(spans), []
    for e in edges:
        end = times[e.ends][1] if e.ends is not None else math.nan
        start = times[e.starts][0] if e.starts is not None else math.nan
        if e.ends is None or e.starts is None:
            truth.append(start if e.ends is None else end)
        else:  # one edge to us, a pause to them: no single right answer
            truth.append((start + end) / 2 if abs(start - end) <= 0.03 else math.nan)
    return bd.spectrum(samples), np.array([e.time for e in edges]), bd.contexts(edges), np.array(truth)


def train(taught, seed, *, hidden=192, epochs=16, batch=512, drop=0.3, decay=0.01, most=1.5e-3):
    """A softmax over bd.BINS, trained by AdamW on blurred truths, from places around the decoder's and around the true ones."""
    torch.manual_seed(seed)
    pad, wide, width = bd.FRAME_OFFSETS.max() + 20, len(bd.FRAME_OFFSETS), int(1 / bd.BIN_WIDTH)
    bands, at, truth, about, clean, base = [], [], [], [], [], []
    total = 0
    for spectrum, decoded, context, true, is_clean in taught:
        known = np.abs(true - decoded) < bd.BINS[-1]  # further off, the decoder was lost
        bands.append(np.pad(spectrum, ((pad, pad), (0, 0)), mode="edge").astype(np.float16))
        at.append(decoded[known])
        truth.append(true[known])
        about.append(context[known])
        clean.append(np.full(known.sum(), is_clean))
        base.append(np.full(known.sum(), total + pad))
        total += len(bands[-1])
    bands, at, truth, about, clean, base = (torch.from_numpy(np.concatenate(x)) for x in (bands, at, truth, about, clean, base))
    offsets, bins = torch.from_numpy(bd.FRAME_OFFSETS), torch.from_numpy(bd.BINS)
    columns = torch.from_numpy(np.cumsum([0, *bd.SIZES[:-1]]))
    net = torch.nn.Sequential(
        torch.nn.Linear(bd.INPUTS, hidden), torch.nn.ReLU(), torch.nn.Dropout(drop), torch.nn.Linear(hidden, len(bins))
    )
    optimiser, steps, step = torch.optim.AdamW(net.parameters(), lr=most, weight_decay=decay), epochs * (len(at) // batch), 0
    for epoch in range(epochs):
        order, losses = torch.randperm(len(at)), []
        for k in range(0, len(at) - batch + 1, batch):
            rows = order[k : k + batch]
            near = at[rows] + (torch.rand(batch) * 2 - 1) * 0.03
            lost = truth[rows] + torch.randn(batch) * 0.04
            asked = torch.where(torch.rand(batch) < torch.where(clean[rows], 0.2, 0.6), lost, near)
            frames = torch.round(asked * width).long()
            seen = bands[(base[rows] + frames)[:, None].add(offsets).clamp(0, len(bands) - 1)].float()
            seen = seen * (1 + 0.2 * torch.randn(batch, 1, 1)) + 0.1 * torch.randn(batch, 1, bd.BANDS)  # loudness, colour
            seen = seen + 0.12 * torch.randn_like(seen)
            hot = torch.zeros(batch, sum(bd.SIZES)).scatter_(1, about[rows] + columns, 1.0)
            goal = torch.exp(-0.5 * (((truth[rows] - asked)[:, None].float() - bins) / 0.006) ** 2) + 1e-6
            score = functional.log_softmax(net(torch.cat([seen.reshape(batch, wide * bd.BANDS), hot], 1)), 1)
            loss = -(goal / goal.sum(1, keepdim=True) * score).sum(1).mean()
            for group in optimiser.param_groups:
                group["lr"] = most * (min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 0.01)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            losses.append(loss.item())
        print(f"net {seed}, epoch {epoch}: {np.mean(losses):.3f}", flush=True)
    first, _, _, second = net
    return {
        n: x.detach().numpy()
        for n, x in {"w0": first.weight.T, "b0": first.bias, "w1": second.weight.T, "b1": second.bias}.items()
    }


def left_over(refiner, folders):
    """[(speaker, class on the left, class on the right, s that the network leaves)] over hand-labelled recordings."""
    rows, recogniser = [], Recogniser(Speller())
    for label in sorted(label for folder in folders for label in folder.glob("*.json")):
        marks = json.loads(label.read_text(encoding="utf-8"))["words"]
        x, rate = read_wav(label.with_suffix(".wav"))
        samples = np.rint(np.clip(resample(x, bd.SAMPLE_RATE / rate), -32768, 32767)).astype(np.int16)
        found = recogniser.align(samples, [re.sub("[^a-z']", "", m["text"].lower()) for m in marks])
        if found:
            spans = [bd.WordSpan(word.start, word.end, word.phones) for word in found]
            _, at, about, truth = lesson(samples, spans, [(m["start"], m["end"]) for m in marks])
            rest = truth - at - refiner.estimate(samples, bd.edges_of(spans))[0]
            speaker = label.stem.split("_")[0]
            rows += [(speaker, int(a[0]), int(a[1]), float(r)) for a, r in zip(about, rest, strict=True) if abs(r) < 0.15]
    return rows


def offsets(left):
    """[2, classes]: what to add for the class on either side of an edge; alternately medians, drawn to 0 where few were seen."""
    sides, rest = [np.array([row[k] for row in left]) for k in (1, 2)], np.array([row[3] for row in left])
    table = np.zeros((2, bd.N_CLASSES))
    overall = np.median(rest)
    for _ in range(10):
        for side, other in ((0, 1), (1, 0)):
            unexplained = rest - overall - table[other, sides[other]]
            for c in range(bd.N_CLASSES):
                own = unexplained[sides[side] == c]
                table[side, c] = np.median(own) * len(own) / (len(own) + 20) if len(own) else 0.0
    table[0] += overall
    return table.astype(np.float32)


def held_out(left):
    """Errors (s) with the offsets made without the speaker."""
    errors = []
    for speaker in sorted({row[0] for row in left}):
        table = offsets([row for row in left if row[0] != speaker])
        errors += [row[3] - table[0, row[1]] - table[1, row[2]] for row in left if row[0] == speaker]
    return np.abs(errors)


def stored(path, make):
    """What is in the file `path`; made and put there if it is not."""
    if not path.exists():
        made = make()
        path.write_bytes(pickle.dumps(made))
    return pickle.loads(path.read_bytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hand-labelled", type=Path, nargs="*")
    parser.add_argument("--sentences", type=int, default=1200)
    parser.add_argument("--work", type=Path, default=Path("build/boundaries"))
    parser.add_argument("--out", type=Path, default=Path(bd.__file__).parent / "data" / "boundaries.npz")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order
    args.work.mkdir(parents=True, exist_ok=True)
    index = stored(args.work / "index", lambda: synthesise(args.work / "speech", args.sentences, np.random.default_rng(2)))
    taught = []
    for turn in range(2):
        recordings = stored(args.work / f"recordings{turn}", lambda: recorded(index, np.random.default_rng(20 + turn)))  # noqa: B023
        for number, version in enumerate(VERSIONS):
            rng = np.random.default_rng([2, turn, number + 5])
            taught += stored(args.work / f"lessons{turn}{version}", lambda: lessons(recordings, version, rng))  # noqa: B023
    print(f"{len(taught)} lessons, {sum(len(x[1]) for x in taught)} edges", flush=True)
    nets = [stored(args.work / f"net{seed}", lambda: train(taught, seed)) for seed in range(NETS)]  # noqa: B023
    parameters = {name: np.stack([net[name] for net in nets]).astype(np.float16) for name in nets[0]}
    if args.hand_labelled:
        np.savez(draft := io.BytesIO(), **parameters, offsets=np.zeros((2, bd.N_CLASSES), np.float32))
        refiner = bd.BoundaryRefiner(io.BytesIO(draft.getvalue()))
        left = left_over(refiner, args.hand_labelled)
        table, errors = offsets(left), held_out(left)
        shares = ", ".join(f"{(errors <= limit).mean():.3f} within {1000 * limit:.0f} ms" for limit in (0.02, 0.05))
        print(f"edges of hand-labelled speech, offsets of the other speakers: {1000 * errors.mean():.1f} ms, {shares}")
    else:
        with np.load(args.out, allow_pickle=False) as old:
            table = old["offsets"]
    np.savez_compressed(args.out, **parameters, offsets=table)


if __name__ == "__main__":
    main()
