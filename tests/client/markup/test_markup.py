# ruff: noqa: RUF001  typographic marks are the subject here
"""What is not said comes back as SKIPPED or not at all; what is said keeps its place in the caller's text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_client.markup import Markup
from aligner_svc.domain import Token
from aligner_svc.text import tokenise
from aligner_svc.text.model_words import split
from aligner_svc.text.transcript import words


def tokens(text: str, language: str = "en") -> list[Token]:
    return list(words(text, tokenise if language == "en" else split, language))


def read(text: str, language: str = "en") -> str:
    """The words, those that are skipped in braces."""
    return " ".join("{" + token.text + "}" if token.skipped else token.text for token in tokens(text, language))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don&#39;t call you &quot;Junior&quot; &amp; me", "Don't call you Junior & me"),
        ("Don&amp;#39;t &#x27;em AT&amp;T caf&eacute; a&nbsp;b", "Don't 'em AT&T café a b"),
        ("&lt;i&gt;so&lt;/i&gt; &gt;&gt; JOHN: hi", "so {JOHN:} hi"),
        ("R&D; &unknown; x", "R&D unknown x"),
        ("don&#39t a&nbsp b", "don't a b"),
        ("<i>Don't</i> wo<b>rd</b><br/>next<br>line", "Don't word next line"),
        ('<p class="x">a</p><p begin="1s">b</p><font color="red">c</font>', "a b c"),
        (
            "<v Mary>Hi <c.yellow>there</c> <00:00:02.000>you</v><v.loud Bob Lee>No</v>",
            "{<v Mary>} Hi there you {<v.loud Bob Lee>} No",
        ),
        ("Don't<00:00:00.400><c> they</c><00:00:00.600><c> still</c>", "Don't they still"),
        (r"{\an8}{\k20}Don't {\k30}they\Nstill", "Don't they still"),
        (r"{y:i}Don't\Nthey C:\New", "Don't they C New"),
        ("if x < y and z > w then <y and z>", "if x y and z w then y and z"),
        (
            "10<sup>th</sup> word<sup>2</sup> m<sup>2</sup>",
            "10th word {<sup>2</sup>} m²",
        ),
    ],
)
def test_tags_and_character_references(text: str, words: str) -> None:
    assert read(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n00:00:00,500 --> 00:00:02,000\nDon't 2\n\n2\n00:00:02,000 --> 00:00:03,500\n10 years",
         "{1} {00:00:00,500 --> 00:00:02,000} Don't 2 {2} {00:00:02,000 --> 00:00:03,500} 10 years"),
        ("1 00:00:00,500 --> 00:00:02,000 at age 10 2 00:00:02,000 --> 00:00:03,500 I",
         "{1} {00:00:00,500 --> 00:00:02,000} at age 10 {2} {00:00:02,000 --> 00:00:03,500} I"),
        ("\ufeff1\n00:00:00,500 --> 00:00:02,000\nhi", "{1} {00:00:00,500 --> 00:00:02,000} hi"),
        ("7\r\n00:00:00,500 --> 00:00:02,000\r\nhi\r\n\r\n8\r\n00:00:02,000 --> 00:00:03,500\r\nyou\r\n",
         "{7} {00:00:00,500 --> 00:00:02,000} hi {8} {00:00:02,000 --> 00:00:03,500} you"),
        ("\ufeffWEBVTT - title\nKind: captions\n\nNOTE one\ntwo\n\nSTYLE\n::cue {color:red}\n\nintro\n"
         "00:01.000 --> 00:02.000 align:start line:0%\nNOTE this\n\n00:02.000 --> 00:03.000\nyou",
         "{WEBVTT - title} {Kind: captions} {NOTE one} {two} {STYLE} {::cue {color:red}} {intro} "
         "{00:01.000 --> 00:02.000 align:start line:0%} NOTE this {00:02.000 --> 00:03.000} you"),
        ("WEBVTT 00:00.500 --> 00:02.000 hi 00:02.000 --> 00:03.500 you",
         "{WEBVTT} {00:00.500 --> 00:02.000} hi {00:02.000 --> 00:03.500} you"),
        ("0:00:00.500,0:00:02.000\nhi\n\n0:00:02.000,0:00:03.500\nyou",
         "{0:00:00.500,0:00:02.000} hi {0:00:02.000,0:00:03.500} you"),
        ("[Script Info]\nTitle: x\n\n[Events]\nFormat: Layer, Text\nDialogue: 0,0:00:00.50,0:00:02.00,Default,,0,0,0,,hi, you",
         "{[Script Info]} {Title: x} {[Events]} {Format: Layer, Text} "
         "{Dialogue: 0,0:00:00.50,0:00:02.00,Default,,0,0,0,,} hi you"),
        ("[00:12.34]Don't <00:12.50>they\n[00:14.00]still", "{[00:12.34]} Don't they {[00:14.00]} still"),
        ("0:05\nDon't\n0:07\nstill", "{0:05} Don't {0:07} still"),
        ("0:05 Don't\n0:07 still", "{0:05} Don't {0:07} still"),
        ("(00:05) Don't [01:02:03] still", "{(00:05)} Don't {[01:02:03]} still"),
    ],
)  # fmt: skip
def test_pasted_subtitle_files(text: str, words: str) -> None:
    assert read(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MARY: Hi. JOHN SMITH: Well. BOB hi", "{MARY:} Hi {JOHN SMITH:} Well BOB hi"),
        ("MARY: hi JOHN: you", "{MARY:} hi {JOHN:} you"),
        ("Mary: hi\nJohn Smith: you\nDr. Jones: no", "{Mary:} hi {John Smith:} you {Dr. Jones:} no"),
        ("Speaker 1: hi Speaker 2: you", "{Speaker 1:} hi {Speaker 2:} you"),
        (
            "SPEAKER_00: hi\nspeaker_01: you\nInterviewer: well\nMale Voice: no",
            "{SPEAKER_00:} hi {speaker_01:} you {Interviewer:} well {Male Voice:} no",
        ),
        ("[Speaker 1] hi [Speaker 2]: you", "{[Speaker 1]} hi {[Speaker 2]:} you"),
        ("Q. Did you? A. I did. Q1: So?", "{Q.} Did you {A.} I did {Q1:} So"),
        ("A: Did you?\nB: No", "{A:} Did you {B:} No"),
        (">> JOHN: hi >> Mary Poe: you >> so", "{JOHN:} hi {Mary Poe:} you so"),
        ("- Mary: hi\n– JOHN (V.O.): you", "{Mary:} hi {JOHN (V.O.):} you"),
        ("Oleg: hi\nso\nis it\nKuno: you\nOleg: no", "{Oleg:} hi so is it {Kuno:} you {Oleg:} no"),
        ("Oleg: hi\nKuno: you", "{Oleg:} hi {Kuno:} you"),
        ("Oleg: hi\nKuno: you\nOleg: no", "{Oleg:} hi {Kuno:} you {Oleg:} no"),
        ("Speaker 1  0:05\nhi\n\nJohn Smith  01:07\nyou", "{Speaker 1  0:05} hi {John Smith  01:07} you"),
        ("<i>MARY: hi</i>", "{MARY:} hi"),
        ("THE PRESIDENT: hi. MR. POE: you", "{THE PRESIDENT:} hi {MR. POE:} you"),
        ("Speaker One: hi\nMan #1: you", "{Speaker One:} hi {Man #1:} you"),
        ("Guest B: no\nMary (to John): so", "{Guest B:} no {Mary (to John):} so"),
        ("[00:05] Mary: hi [00:10] Bob: you", "{[00:05]} {Mary:} hi {[00:10]} {Bob:} you"),
        ("MARY [whispering]: hi\nMary (00:05): you", "{MARY [whispering]:} hi {Mary (00:05):} you"),
    ],
)
def test_speakers(text: str, words: str) -> None:
    assert read(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[laughter] hi (sighs) *coughs* you {laughs} [MUSIC PLAYING]",
            "{[laughter]} hi {(sighs)} {*coughs*} you {{laughs}} {[MUSIC PLAYING]}",
        ),
        (
            "(he laughs) (CLEARS THROAT) (MAN ON TV) (speaking Spanish) (in French)",
            "{(he laughs)} {(CLEARS THROAT)} {(MAN ON TV)} {(speaking Spanish)} {(in French)}",
        ),
        ("[Music]hi you[Laughs]", "{[Music]} hi you {[Laughs]}"),
        ("<laughter> hi <unk> [inaudible 00:12:15] you", "{<laughter>} hi {<unk>} {[inaudible 00:12:15]} you"),
        (
            "[door\nslams] (dramatic music) ♪ music ♪ ♪ Happy birthday ♪",
            "{[door\nslams]} {(dramatic music)} {♪ music } Happy birthday",
        ),
        ("Junior[1] as[12] ten² years.³ word<sup>4</sup> a¹", "Junior {[1]} as {[12]} ten {²} years {³} word {<sup>4</sup>} a¹"),
        ("years old.3 Then tea.”12", "years old {3} Then tea {12}"),
        ("(both laugh) (Laughter.) ((sighs)) **coughs**", "{(both laugh)} {(Laughter.)} {(sighs)} {**coughs**}"),
        ("years[citation needed], old†, call* [sic]", "years {[citation needed]} old call {[sic]}"),
    ],
)
def test_sounds_and_footnotes(text: str, words: str) -> None:
    assert read(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "he said (he said) and (I know) that (really)",
        "Note: this. Step one: go. Warning: stop. Breaking news: no. The answer: yes",
        "at 10:30 in John 3:16 with 16:9 and 2:1",
        "He told Mary: come. What I mean: this",
        "A. Smith and J. R. R. Tolkien met Q. E. D.",
        "HE SAID: COME HERE. SHE SAID: NO",
        "x² m² km² 10² E = mc² sin²",
        "the agency (NASA) *really* **bold** word(s) f(x)",
        "she [T]hen call[ed] and [I] went",
        "a -> b, 3 > 2 < 5, R&D & AT&T",
        "10:30",
        "Dear John: hello. Today: rain",
        "one\ntwo\n3\nfour",
        "Serial number: hi\none\ntwo\nthree\nSubject line: so (starts a comment) (open it)",
        "vol.12 No.5 It was good.3 people",
    ],
)
def test_speech_that_looks_like_markup_is_speech(text: str) -> None:
    assert [token.text for token in tokens(text) if token.skipped] == []
    assert Markup.of(text).text == text


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("zh", "主持人：你好（笑）[掌声]<b>世</b>界", "{主持人：} 你 好 {（笑）} {[掌声]} 世 界"),
        ("fr", "MARIE&nbsp;: l&#39;&eacute;t&eacute; (rires) <i>dernier</i>", "{MARIE&nbsp;:} l'été {(rires)} dernier"),
        ("de", "Sprecher 1: Gr&uuml;&szlig; Gott [lacht]", "{Sprecher 1:} Grüß Gott {[lacht]}"),
    ],
)
def test_every_language(language: str, text: str, words: str) -> None:
    assert read(text, language) == words


def test_offsets_point_into_the_text_that_was_sent() -> None:
    text = "<i>Don&#39;t</i> MARY: &eacute;te\u0301 [x] wo<b>rd</b>."
    found = tokens(text)
    assert [text[token.char_start : token.char_end] for token in found] == [
        "Don&#39;t",
        "MARY",
        "&eacute;te\u0301",
        "[x]",
        "wo<b>rd",
    ]
    assert [token.text for token in found] == ["Don't", "MARY", "\u00e9te\u0301", "[x]", "word"]


@pytest.mark.parametrize("reference", ["&#x202E;", "&#0;", "&#xD800;", "&#57344;", "&#7;", "&#9999999;", "&#x110000;"])
def test_a_reference_is_no_way_to_a_character_that_is_refused(reference: str) -> None:
    assert Markup.of(f"a{reference}b").text == "a b"


_PIECES = r"""
    a word MARY: Mary: >> - [ ] ( ) < > <i> </i> <v Al> &#39; &amp; ; {\k1} * ² ♪ 1 2 00:00:01,000 --> 00:00:02,000 WEBVTT NOTE
    Q. A. laughs [laughter] (sighs) é . ? " : 0:05 <00:01.000> Dialogue: ,
"""
_SOME = st.sampled_from([*_PIECES.split(), "\n", "\n\n", "e\u0301", "\u00ad"])


@settings(max_examples=400)
@given(st.lists(_SOME, max_size=25).map(" ".join) | st.lists(_SOME, max_size=12).map("".join))
def test_words_and_marks_are_in_order_and_apart(text: str) -> None:
    reached = 0
    for token in tokens(text):
        assert reached <= token.char_start < token.char_end <= len(text)
        assert token.text
        reached = token.char_end


@settings(max_examples=200)
@given(st.text(st.sampled_from("abc XYZ,.!?\n'-"), max_size=80))
def test_plain_text_is_left_alone(text: str) -> None:
    assert Markup.of(text).text == text


_HARD = [
    *[
        "<",
        "<a ",
        "</a>",
        "<!--",
        "[",
        "[a",
        "(a",
        "((",
        "{\\",
        "*a",
        "&amp;",
        "&#39;",
        "♪ a ",
        "a²",
        "a:\n",
        "A: ",
        "Q. A ",
        "MARY: ",
    ],
    *[">", ">> ", ". ", "\n", "1\n", "00:00:00,500 --> ", "0:05\n", "0:05 a\n", "Speaker 1: ", "Aa ", "a_b ", " ", "-", "<sup>"],
]


def test_long_texts_of_hard_cases_take_linear_time() -> None:
    """Rules of quadratic cost would take longer for them than the test may."""
    for piece in _HARD:
        Markup.of(piece * (50_000 // len(piece)))
    for piece in ("a\n", "\n", "NOTE a\n"):
        Markup.of("WEBVTT\n\n" + piece * (50_000 // len(piece)))
