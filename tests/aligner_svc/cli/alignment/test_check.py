"""`aligner check`: how a transcript is read, before there is any audio."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from aligner_svc.cli import app


def check(*arguments: str):
    return CliRunner().invoke(app, ["check", *arguments])


def test_figures_labels_and_unknown_words_are_shown_with_what_is_looked_for() -> None:
    text = "MARY: Dr. Zbrzezny paid $5.20 for 3 CDs [laughs], 東京."
    found = {one["text"]: one for one in json.loads(check("--text", text, "--json").stdout)}
    assert found["$5.20"]["spoken"] == "five dollars twenty cents"
    assert found["Dr."]["phones"] == "D AA K T ER"
    kinds = {name: one["found"] for name, one in found.items()}
    assert kinds["Zbrzezny"] == "guessed"
    assert kinds["東京"] == "unreadable"
    assert kinds["MARY:"] == kinds["[laughs]"] == "skipped"
    assert kinds["paid"] == "known"
    assert all(text[one["char_start"] :].startswith(name) for name, one in found.items())


def test_the_table_leaves_out_what_is_read_as_written() -> None:
    shown = check("--text", "hello 3 times").stdout
    assert "three" in shown
    assert "hello" not in shown
    assert "3 words, all known" in shown
    assert "hello" in check("--text", "hello 3 times", "--all").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--text", "東京"), 1), ((), 2), (("--text", "a\x00b"), 1), (("--text", "hi", "--language", "xx"), 1)],
)
def test_exit_codes(arguments: tuple[str, ...], code: int) -> None:
    assert check(*arguments).exit_code == code


def test_other_languages_are_read_by_their_own_rules(tmp_path) -> None:
    file = tmp_path / "talk.txt"
    file.write_text("um 5 Uhr", encoding="utf-8")
    assert "fünf" in check(str(file), "--language", "de").stdout


def test_given_sounds_are_shown_and_those_of_other_languages_in_ipa(tmp_path) -> None:
    given = tmp_path / "said.txt"
    given.write_text("Zbrzezny z b ʐ ɛ z n ɨ\n", encoding="utf-8")
    arguments = ("--text", "Haus Zbrzezny 東", "--language", "de", "--pronunciations", str(given), "--json")
    found = [(one["text"], one["phones"], one["found"]) for one in json.loads(check(*arguments).stdout)]
    assert found == [("Haus", "h aʊ s", "known"), ("Zbrzezny", "z b ʐ ɛ z n ɨ", "known"), ("東", "", "unreadable")]
    given.write_text("Haus HH AW1 S\n", encoding="utf-8")
    assert "no symbol of IPA" in check(*arguments).stderr


def test_a_dictionary_of_cmu_gives_pronunciations_one_for_each_word(tmp_path) -> None:
    given = tmp_path / "cmu.dict"
    arguments = ("--text", "Qxz", "--pronunciations", str(given), "--json")
    given.write_text(";;; old\nqxz  K AE1 T # new\n\nother AH0\n", encoding="utf-8-sig")
    assert json.loads(check(*arguments).stdout)[0]["phones"] == "K AE T"
    for text, why in (("qxz K\nqxz(2) T\n", "two pronunciations of qxz"), ("qxz # K\n", "no sounds for qxz")):
        given.write_text(text, encoding="utf-8")
        refused = check(*arguments)
        assert (refused.exit_code, why in refused.stderr) == (1, True)
