"""Words of other languages, and how figures in them are said."""

from __future__ import annotations

import pytest

from aligner_svc.text.spoken import tokenise


def said(text: str, language: str) -> list[str]:
    return [word for token in tokenise(text, language) for word in token.spoken]


@pytest.mark.parametrize(
    ("language", "text", "spoken"),
    [
        ("de", "Ärger, Öl!", "ärger öl"),
        ("de", "21", "einundzwanzig"),
        ("de", "1.000.000", "eine million"),
        ("de", "3,14", "drei komma eins vier"),
        ("de", "5 %", "fünf prozent"),
        ("de", "-5", "minus fünf"),
        ("de", "2024", "zweitausendvierundzwanzig"),
        ("de", "007", "null null sieben"),
        ("de", "G20-Gipfel", "g zwanzig gipfel"),
        ("fr", "1er", "premier"),
        ("fr", "$5", "cinq dollars"),
        ("es", "3 €", "tres euros"),
        ("es", "1.º", "primero"),
        ("es", "1 de cada", "uno de cada"),
        ("es", "10:00", "diez"),
        ("it", "25%", "venticinque per cento"),
        ("pt", "21", "vinte e um"),
        ("ru", "5-й", "пятый"),
        ("el", "1984", "χίλια εννιακόσια ογδόντα τέσσερα"),
        ("el", "2000000", "δύο εκατομμύρια"),
        ("el", "17", "δεκαεπτά"),
        ("es", "١٢", "doce"),  # digits of another script
        ("de", "1" * 20, " ".join(["eins"] * 20)),
    ],
)
def test_a_reading(language: str, text: str, spoken: str) -> None:
    assert " ".join(said(text, language)).replace("_", " ").split("|")[0] == spoken


@pytest.mark.parametrize(
    ("language", "text", "ways"),
    [
        ("de", "am 3. Mai", "drei|dritte|dritten"),
        ("de", "am 3.Mai", "drei|dritte|dritten"),
        ("de", "03.05.2024", "mai|fünf|fünfte|fünften"),
        ("de", "2024-05-03", "drei|dritte|dritten"),
        ("es", "el 1 de mayo", "uno|primero"),
        ("es", "03/05/2024", "de_mayo_de|cinco"),
        ("fr", "le 1 mai", "un|premier"),
        ("it", "il 1 maggio", "uno|primo"),
        ("pt", "1 de Maio", "um|primeiro"),
        ("pt", "1/5/2024", "de_maio_de|cinco"),
        ("de", "1984", "eintausendneunhundertvierundachtzig|neunzehnhundertvierundachtzig"),
        ("de", "14:30", "vierzehn_uhr_dreißig|vierzehn_dreißig"),
        ("fr", "8h30", "huit_heures_trente|huit_trente"),
    ],
)
def test_what_may_be_said_in_several_ways_has_them_all(language: str, text: str, ways: str) -> None:
    assert ways in said(text, language)


def test_figures_of_a_language_whose_numbers_are_not_known_are_not_read() -> None:
    (token, *_) = tokenise("12 mjoj", "ast")
    assert (token.text, token.spoken) == ("12", ())


def test_offsets_are_those_of_the_text() -> None:
    text = "»Für 5 € — ja?«"
    assert [text[token.char_start : token.char_end] for token in tokenise(text, "de")] == ["Für", "5", "ja"]
