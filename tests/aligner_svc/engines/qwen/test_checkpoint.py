"""A checkpoint is loaded unchanged, or refused with one line that says what is wrong with it."""

from __future__ import annotations

import errno
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from aligner_svc.config.engine import PUBLISHED, PUBLISHED_REVISION
from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.checkpoint import Checkpoint, CheckpointError
from tests.kit import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("one_torch_thread")

_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"


def load(model: Path | str, dtype: torch.dtype = torch.float32) -> Checkpoint:
    return checkpoint.load(str(model), torch.device("cpu"), dtype)


def refusal(model: Path | str) -> str:
    """The error for a checkpoint: one line that begins with its name."""
    with pytest.raises(CheckpointError) as caught:
        load(model)
    message = str(caught.value)
    assert message.startswith(f"{model}: ")
    assert "\n" not in message
    assert len(message) < 400
    return message.removeprefix(f"{model}: ")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.build(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(sound, tmp_path / "model")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / _WEIGHTS)
    change(tensors)
    save_file(tensors, folder / _WEIGHTS, {"format": "pt"})


def shard(folder: Path) -> None:
    """Into two files and an index."""
    tensors = load_file(folder / _WEIGHTS)
    names = sorted(tensors)
    (folder / _WEIGHTS).unlink()
    where = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == file}, folder / file, {"format": "pt"})
    (folder / _INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}), encoding="utf-8")


# Valid ones


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_is_loaded_unchanged(folder: Path, dtype: torch.dtype) -> None:
    loaded = load(folder, dtype)
    assert loaded.segment_ms == 80.0
    assert loaded.audio_tokens == ("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>")
    assert loaded.tokenizer.convert_ids_to_tokens([loaded.audio_id, loaded.timestamp_id]) == ["<|audio_pad|>", "<timestamp>"]
    assert loaded.mel_filters.shape == (201, 128)
    assert loaded.mel_filters.dtype == torch.float32
    assert not loaded.thinker.training
    tensors = load_file(folder / _WEIGHTS)
    for name, parameter in loaded.thinker.named_parameters():
        assert not parameter.requires_grad
        assert parameter.dtype == dtype
        assert torch.equal(parameter, tensors[f"thinker.{name}"].to(dtype))


def test_weights_in_several_files(folder: Path, sound: Path) -> None:
    shard(folder)
    one, two = load(sound).thinker.state_dict(), load(folder).thinker.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_tokenizer_in_the_old_format_splits_the_same(folder: Path, sound: Path) -> None:
    """The published checkpoint has vocab.json and merges.txt, and no tokenizer.json."""
    (folder / "tokenizer.json").unlink()
    text = "<|audio_start|><|audio_pad|><|audio_end|>the<timestamp><timestamp>быстрая<timestamp><timestamp>敏捷<timestamp>"
    assert load(folder).tokenizer(text)["input_ids"] == load(sound).tokenizer(text)["input_ids"]


def test_a_pickle_next_to_the_weights_is_not_opened(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04 never read")
    load(folder)


def test_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    load("~/model")


# Not a checkpoint


def test_no_folder(tmp_path: Path) -> None:
    assert "not a folder" in refusal(tmp_path / "nothing")
    assert "not a folder" in refusal("./nothing/here")


def test_a_file(folder: Path) -> None:
    assert "not a folder" in refusal(folder / _WEIGHTS)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "config.json is missing"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "config.json cannot be read as JSON"),
        (b"{", "config.json cannot be read as JSON"),
        (b"\xff\xfe{}", "config.json cannot be read as JSON"),
        (b"[]", "config.json holds no JSON object"),
        (b"{}", "not a Qwen3 forced aligner: config.json describes no model type"),
        (b'{"model_type": "bert"}', "not a Qwen3 forced aligner: config.json describes bert"),
        (b'{"model_type": "qwen3_asr", "thinker_config": 7}', "not a Qwen3 forced aligner: config.json describes qwen3_asr"),
    ],
)
def test_a_config_of_something_else(content: bytes, said: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    assert refusal(folder) == said


def test_a_config_that_is_a_folder(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize("kind", ["qwen3_asr", "qwen3_forced_aligner"])
def test_the_layout_of_transformers_5_names_the_right_repository(kind: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "audio_config": {}, "text_config": {}}))
    assert refusal(folder).endswith(f"layout of transformers 5 (-hf), which has other names; use {PUBLISHED}")


def test_a_checkpoint_of_the_recogniser_is_refused(folder: Path) -> None:
    """Qwen3-ASR, whose checkpoint differs in one word."""
    edit(folder / "config.json", lambda config: config["thinker_config"].update(model_type="qwen3_asr"))
    assert refusal(folder) == "not a Qwen3 forced aligner: config.json describes qwen3_asr / qwen3_asr"


@pytest.mark.parametrize("name", ["timestamp_token_id", "timestamp_segment_time"])
@pytest.mark.parametrize("value", [None, "80"])
def test_a_number_missing_from_the_config(name: str, value: str | None, folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update({name: value}))
    assert refusal(folder) == f"config.json lacks {name}"


def test_the_number_of_classes_missing_from_the_config(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config["thinker_config"].pop("classify_num"))
    assert refusal(folder) == "config.json lacks thinker_config.classify_num"


def test_everything_missing_is_named_at_once(folder: Path) -> None:
    edit(folder / "config.json", lambda config: [config.pop("timestamp_token_id"), config["thinker_config"].pop("classify_num")])
    assert refusal(folder) == "config.json lacks timestamp_token_id, thinker_config.classify_num"
    shutil.rmtree(folder)
    folder.mkdir()
    shutil.copy(checkpoints.build(folder.parent / "other") / "config.json", folder)
    missing = refusal(folder)
    assert all(name in missing for name in ("preprocessor_config.json", "tokenizer_config.json", "vocab.json", _WEIGHTS))


# Files


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer_config.json", _WEIGHTS])
def test_a_file_that_is_missing(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert refusal(folder) == f"missing from the checkpoint: {name}"


def test_no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    assert refusal(folder) == "missing from the checkpoint: tokenizer.json or vocab.json"


def test_no_merges(folder: Path) -> None:
    for name in ("tokenizer.json", "merges.txt"):
        (folder / name).unlink()
    assert "tokenizer" in refusal(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_file_of_the_processor_that_is_broken(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    said = refusal(folder)
    assert "tokenizer" in said or "feature extractor" in said or name in said


@pytest.mark.parametrize(("name", "value"), [("hop_length", 320), ("n_fft", 512), ("sampling_rate", 8000)])
def test_other_frames_are_refused(name: str, value: int, folder: Path) -> None:
    edit(folder / "preprocessor_config.json", lambda config: config.update({name: value}))
    assert f"'{name}': {value}" in refusal(folder)


def test_another_number_of_mel_bins_is_refused(folder: Path) -> None:
    """80, as in Whisper before version 3."""
    edit(folder / "preprocessor_config.json", lambda config: config.update(feature_size=80))
    assert "80" in refusal(folder)


def test_weights_in_a_pickle_are_not_opened(folder: Path) -> None:
    tensors = load_file(folder / _WEIGHTS)
    (folder / _WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert refusal(folder) == f"missing from the checkpoint: {_WEIGHTS}"


# Weights


@pytest.mark.parametrize("kept", [0, 4, 1000, -1000, -1])
def test_weights_cut_short(kept: int, folder: Path) -> None:
    """An interrupted download."""
    content = (folder / _WEIGHTS).read_bytes()
    (folder / _WEIGHTS).write_bytes(content[:kept])
    assert "weights" in refusal(folder)


def test_a_git_lfs_pointer_instead_of_weights(folder: Path) -> None:
    """Cloned without git-lfs."""
    (folder / _WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1835008\n")
    assert "weights" in refusal(folder)


def test_a_missing_file_of_the_index(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert refusal(folder) == "missing from the checkpoint: model-00002-of-00002.safetensors"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 7}', '{"weight_map": []}'])
def test_a_malformed_index(content: str, folder: Path) -> None:
    shard(folder)
    (folder / _INDEX).write_text(content)
    assert _INDEX in refusal(folder)


def test_an_index_without_one_tensor(folder: Path) -> None:
    shard(folder)
    edit(folder / _INDEX, lambda index: index["weight_map"].pop("thinker.lm_head.weight"))
    assert "weights" in refusal(folder)


def test_a_tensor_that_is_missing(folder: Path) -> None:
    reweigh(folder, lambda tensors: tensors.pop("thinker.lm_head.weight"))
    assert refusal(folder) == "the weights lack thinker.lm_head.weight"
    reweigh(folder, lambda tensors: [tensors.pop(name) for name in sorted(tensors)[:3]])
    assert refusal(folder).endswith(" and 3 more")


def test_weights_of_another_model(folder: Path) -> None:
    save_file({"bert.pooler.weight": torch.zeros(2, 2)}, folder / _WEIGHTS, {"format": "pt"})
    assert refusal(folder).startswith("the weights lack ")


def test_another_number_of_classes(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config["thinker_config"].update(classify_num=4000))
    said = refusal(folder)
    assert "thinker.lm_head.weight" in said
    assert "(4000, 48)" in said


def test_another_width(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config["thinker_config"]["audio_config"].update(output_dim=64))
    said = refusal(folder)
    assert "thinker.audio_tower.proj2" in said
    assert "(64" in said


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("audio_config", "n_window", 100),
        ("audio_config", "n_window_infer", 400),
        ("audio_config", "activation_function", "relu"),
        ("text_config", "hidden_act", "gelu"),
    ],
)
def test_other_windows_and_activations_are_refused(part: str, name: str, value: object, folder: Path) -> None:
    """The forward pass has them built in; with others it would silently give other times than qwen-asr."""
    edit(folder / "config.json", lambda config: config["thinker_config"][part].update({name: value}))
    assert f"{part} has {{" in refusal(folder)
    assert f"'{name}': {value!r}" in refusal(folder)


@pytest.mark.parametrize(("part", "name"), [("audio_config", "d_model"), ("text_config", "hidden_size")])
def test_a_malformed_shape(part: str, name: str, folder: Path) -> None:
    edit(folder / "config.json", lambda config: config["thinker_config"][part].update({name: "wide"}))
    assert "weights" in refusal(folder)


def test_weights_that_do_not_fit_into_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real device cannot be filled on purpose."""
    model = checkpoint.Qwen3ASRForConditionalGeneration

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")

    monkeypatch.setattr(model, "to", full)
    assert refusal(folder) == "the weights do not fit into the memory of cpu"


@pytest.mark.parametrize("error", [RuntimeError("one line\nand\nmore"), KeyError("one line"), ValueError()])
@pytest.mark.parametrize("part", ["Qwen3ASRForConditionalGeneration", "Qwen3ASRProcessor"])
def test_the_error_of_a_library_is_shortened_to_a_line(
    part: str, error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_pretrained(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(getattr(checkpoint, part), "from_pretrained", from_pretrained)
    assert ("one line" if error.args else "ValueError") in refusal(folder)


# The tokenizer and the config must agree


def test_a_tokenizer_without_timestamps(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").replace("<timestamp>", "<tstamp>"), encoding="utf-8")
    assert "<timestamp>" in refusal(folder)


@pytest.mark.parametrize("token", ["<timestamp>", "<|audio_pad|>"])
def test_a_token_with_another_number(token: str, folder: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        if token == "<timestamp>":
            config["timestamp_token_id"] = 7
        config["thinker_config"]["timestamp_token_id" if token == "<timestamp>" else "audio_token_id"] = 7

    edit(folder / "config.json", change)
    assert refusal(folder) == f"the tokenizer does not know {token} as token 7, as config.json says"


@pytest.mark.parametrize("name", ["audio_bos_token", "audio_token", "audio_eos_token"])
def test_a_tokenizer_without_an_audio_token(name: str, folder: Path) -> None:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(folder / file, lambda config: (config.pop(name, None), config.get("extra_special_tokens", {}).pop(name, None)))
    assert name in refusal(folder)


# The hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub on a closed port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return cache


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_is_unreachable(offline: bool, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    said = refusal("Qwen/Qwen3-ForcedAligner-0.6B")
    assert "there is no such folder, and the Hugging Face hub was not reached" in said
    assert "offline, give the folder of a downloaded checkpoint" in said


@pytest.mark.parametrize("offline", [True, False])
def test_a_cached_checkpoint_needs_no_hub(offline: bool, hub: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    kept = hub / "models--someone--aligner"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    shutil.copytree(sound, kept / "snapshots" / ("0" * 40))
    assert load("someone/aligner").segment_ms == 80.0


def test_only_needed_files_are_fetched(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a pickle: opening one executes it."""
    wanted: list[list[str]] = []

    def snapshot_download(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert (name, revision) == ("someone/aligner", "main")
        wanted.append(allow_patterns)
        return str(sound)

    monkeypatch.setattr(checkpoint, "snapshot_download", snapshot_download)
    load("someone/aligner")
    files = ["config.json", "merges.txt", _WEIGHTS, "model-00001-of-00002.safetensors", _INDEX, "tokenizer.json"]
    never = ["pytorch_model.bin", "model.pt", "model.pkl", "modeling.py", "training_args.bin"]
    (patterns,) = wanted
    assert list(huggingface_hub.utils.filter_repo_objects([*files, *never], allow_patterns=patterns)) == files


@pytest.mark.parametrize(
    ("model", "revision", "wanted"),
    [
        (PUBLISHED, "", PUBLISHED_REVISION),
        (PUBLISHED, "main", "main"),
        ("someone/aligner", "", "main"),
        ("someone/aligner", "v1", "v1"),
    ],
)
def test_the_revision(model: str, revision: str, wanted: str, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def snapshot_download(_: str, *, revision: str, **__: object) -> str:
        asked.append(revision)
        return str(sound)

    monkeypatch.setattr(checkpoint, "snapshot_download", snapshot_download)
    checkpoint.load(model, torch.device("cpu"), torch.float32, revision)
    assert asked == [wanted]


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "is full"), (errno.EROFS, "cannot be written to; set HF_HOME"), (errno.EACCES, "cannot be written to")],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_is_wrong_with_the_cache_is_said(
    number: int, said: str, wrapped: bool, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client raises the system's error, or one of its own because of it."""

    def snapshot_download(*_: object, **__: object) -> str:
        try:
            raise OSError(number, "the system's words")
        except OSError as error:
            if wrapped:
                raise RuntimeError("Data processing error") from error
            raise

    monkeypatch.setattr(checkpoint, "snapshot_download", snapshot_download)
    message = refusal("someone/aligner")
    assert str(hub) in message
    assert said in message


@pytest.mark.parametrize("name", ["a/b/c", "no spaces", "-model"])
def test_a_malformed_name_of_a_repository(name: str, hub: Path) -> None:
    said = refusal(name)
    assert "neither a folder nor the name of a repository" in said or "not a folder" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("RepositoryNotFoundError", "there is no such folder, and no such repository on the Hugging Face hub"),
        ("RevisionNotFoundError", "the repository on the Hugging Face hub has no revision main"),
    ],
)
def test_a_repository_or_revision_that_does_not_exist(error: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        answer = SimpleNamespace(headers={}, request=None)
        raise getattr(huggingface_hub.errors, error)("404\nClient Error", response=answer)

    monkeypatch.setattr(checkpoint, "snapshot_download", snapshot_download)
    assert refusal("someone/nothing") == said
