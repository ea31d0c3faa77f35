"""What a speaker says for the words of an English transcript."""

from __future__ import annotations

import pytest

from aligner_svc.text import tokenise
from aligner_svc.text.readings import ways


def spoken(text: str) -> list[str]:
    """Of what may be said in several ways, the first."""
    return [" ".join(part for word in token.spoken for part in ways(word)[0]) for token in tokenise(text, "en")]


def written(text: str) -> list[str]:
    return [token.text for token in tokenise(text, "en")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", ["zero"]),
        ("21 105", ["twenty one", "one hundred five"]),
        ("1,234,567", ["one million two hundred thirty four thousand five hundred sixty seven"]),
        ("1,00,000", ["one hundred thousand"]),
        ("3.14 0.5 .5", ["three point one four", "zero point five", "point five"]),
        ("-5 \u22125 +3", ["minus five", "minus five", "plus three"]),
        ("007", ["zero zero seven"]),
        ("1st 2nd 3rd 21st 1,000th", ["first", "second", "third", "twenty first", "one thousandth"]),
        ("1/2 3/4 2/3 5/8", ["one half", "three quarters", "two thirds", "five eighths"]),
        ("\u00bd cup, 2\u00bd cups", ["one half", "cup", "two and a half", "cups"]),
        ("1 1/2 miles", ["one", "and a half", "miles"]),
        ("24/7 9/11", ["twenty four seven", "nine eleven"]),
        ("10-20 and 10\u201320", ["ten to twenty", "and", "ten to twenty"]),
        ("10,20,30", ["ten", "twenty", "thirty"]),
        ("747s", ["seven hundred forty sevens"]),
        ("x\u00b2 5\u00b3", ["x squared", "five cubed"]),
        ("2 + 2 = 4", ["two", "plus", "two", "equals", "four"]),
        ("3\u00d74", ["three times four"]),
        ("\u0663\u0664 \uff15", ["thirty four", "five"]),
        ("version 1.2.3", ["version", "one point two point three"]),
        ("2:1 16:9", ["two to one", "sixteen to nine"]),
        ("5 x 3, 5 \u00d7 3", ["five", "times", "three", "five", "times", "three"]),
        ("5 x 3 feet, 5x3, 4x4x2", ["five", "by", "three", "feet", "five by three", "four by four by two"]),
        ("\u00b15 and \u00b1 5, $\u00b15", ["plus or minus five", "and", "plus or minus", "five", "plus or minus five dollars"]),
        ("10 \u00f7 2", ["ten", "divided by", "two"]),
        ("1 000 000, 2 500 000", ["one million", "two million five hundred thousand"]),
        ("10\u202f500 1'000'000 1_000_000 1.000.000", ["ten thousand five hundred", "one million", "one million", "one million"]),
        ("1 200 300", ["one million two hundred thousand three hundred"]),
        ("100 200 300", ["one hundred", "two hundred", "three hundred"]),
        ("page 5 100 people", ["page", "five", "one hundred", "people"]),
        ("x 5 X", ["x", "five", "x"]),
        ("1,000,000,000,001", ["one trillion one"]),
    ],
)
def test_numbers(text: str, words: list[str]) -> None:
    assert spoken(text) == words


def test_a_very_long_number_is_read_digit_by_digit() -> None:
    (token,) = tokenise("9" * 4_000, "en")
    assert token.spoken == ("nine",) * 4_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$5.20", ["five dollars twenty cents"]),
        ("$1 $1.01 $5.00 $0.99 $.50", ["one dollar", "one dollar one cent", "five dollars", "ninety nine cents", "fifty cents"]),
        ("\u00a31.01 \u20ac2 \u00a5500", ["one pound one penny", "two euros", "five hundred yen"]),
        ("5\u20ac 5 \u20ac", ["five euros", "five", "euros"]),
        ("$5 million", ["five", "million dollars"]),
        ("$5.2 billion deal", ["five point two", "billion dollars", "deal"]),
        ("$3 billion dollars", ["three", "billion", "dollars"]),
        ("$3.5bn $10k", ["three point five billion dollars", "ten thousand dollars"]),
        ("US$5", ["five u s dollars"]),
        ("$5-$10 $1,200.50", ["five dollars to ten dollars", "one thousand two hundred dollars fifty cents"]),
        ("-$5 $-5 \u20ac\u22125.50", ["minus five dollars"] * 2 + ["minus five euros fifty cents"]),
        ("$-5 million -$2 billion", ["minus five", "million dollars", "minus two", "billion dollars"]),
        ("$20-a-day", ["twenty dollars a day"]),
        ("50% 50 % 5%-10%", ["fifty percent", "fifty", "percent", "five percent to ten percent"]),
        ("20\u00b0C 20 \u00b0F 90\u00b0", ["twenty degrees celsius", "twenty", "degrees fahrenheit", "ninety degrees"]),
        ("5km 5 km 1 km 60mph", ["five kilometers", "five", "kilometers", "one", "kilometer", "sixty miles per hour"]),
        ("10 m\u00b2, 5 \u00b5m", ["ten", "square meters", "five", "micrometers"]),
        ("6'2\" tall", ["six foot two", "tall"]),
    ],
)
def test_quantities(text: str, words: list[str]) -> None:
    assert spoken(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("in 1984", ["in", "nineteen eighty four"]),
        (
            "1905 1900 2000 2009 2021",
            ["nineteen oh five", "nineteen hundred", "two thousand", "two thousand nine", "twenty twenty one"],
        ),
        ("in 1066 but 1066 ships", ["in", "ten sixty six", "but", "one thousand sixty six", "ships"]),
        ("2048 MB", ["two thousand forty eight", "megabytes"]),
        ("1990s 1990's '90s \u201990s 1900s", ["nineteen nineties"] * 2 + ["nineties"] * 2 + ["nineteen hundreds"]),
        ("March 3rd, 2021", ["march", "third", "twenty twenty one"]),
        ("March 3, 2021", ["march", "third", "twenty twenty one"]),
        ("5 May 2020", ["fifth", "may", "twenty twenty"]),
        ("Jan. 3", ["january", "third"]),
        ("3/14/2021", ["march fourteenth twenty twenty one"]),
        ("31/12/1999", ["thirty first december nineteen ninety nine"]),
        ("2021-03-14", ["march fourteenth twenty twenty one"]),
        ("2010\u20132012", ["twenty ten to twenty twelve"]),
        ("10:30 am", ["ten thirty", "a m"]),
        ("3pm 10:05PM", ["three p m", "ten oh five p m"]),
        ("at 10:00, 14:00", ["at", "ten o'clock", "fourteen hundred"]),
        ("10:00 a.m. I am", ["ten", "a m", "i", "am"]),
        ("10 AM", ["ten", "a m"]),
    ],
)
def test_dates_and_times(text: str, words: list[str]) -> None:
    assert spoken(text) == words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10:30", ["ten thirty", "half past ten"]),
        ("3:15", ["three fifteen", "quarter past three", "a quarter past three"]),
        ("12:45", ["twelve forty five", "quarter to one", "a quarter to one"]),
        ("3:20", ["three twenty", "twenty past three"]),
        ("5:50", ["five fifty", "ten to six"]),
        ("7:00", ["seven o'clock", "seven"]),
        ("2010", ["twenty ten", "two thousand ten"]),
        ("$5.20", ["five dollars twenty cents", "five twenty"]),
    ],
)
def test_what_is_said_in_several_ways_offers_them_all(text: str, said: list[str]) -> None:
    (token,) = tokenise(text, "en")
    (word,) = token.spoken
    assert [" ".join(way) for way in ways(word)] == said


@pytest.mark.parametrize(
    "text",
    [
        "555-1234",
        "1-800-555-0199",
        "+1-800-555-0199",
        "(555) 123-4567",
        "555 123 4567",
        "5551234567",
        "9-1-1",
        "call 911",
        "CA 90210",
    ],
)
def test_phone_numbers_and_zip_codes_are_digits(text: str) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    expected = [names[int(char)] for char in text if char.isdecimal()]
    assert [word for words in spoken(text) for word in words.split() if word in names] == expected
    assert not {"hundred", "thousand", "to"} & set(" ".join(spoken(text)).split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Dr. Smith Mr. Jones Mrs. Lee", ["doctor", "smith", "mister", "jones", "missus", "lee"]),
        ("Main St. He went to St. Louis", ["main", "street", "he", "went", "to", "saint", "louis"]),
        ("St Andrews", ["saint", "andrews"]),
        ("on Mulholland Dr.", ["on", "mulholland", "drive"]),
        ("e.g. this, i.e. that, etc.", ["for example", "this", "that is", "that", "et cetera"]),
        ("cats vs. dogs vs birds", ["cats", "versus", "dogs", "versus", "birds"]),
        ("U.S.A. U.S.-based", ["u s a", "u s based"]),
        ("PhD Ph.D.", ["p h d", "p h d"]),
        ("No. 5, no.", ["number", "five", "no"]),
        ("no.1 Fig.3a vol.12", ["number one", "figure three a", "volume twelve"]),
        ("WWII, WWI. WW2 wwii-era", ["world war two", "world war one", "world war two", "world war two era"]),
        ("Gen. Lee; one more rep.", ["general", "lee", "one", "more", "rep"]),
        ("w/ and w/o", ["with", "and", "without"]),
        ("J. R. R. Tolkien", ["j", "r", "r", "tolkien"]),
    ],
)
def test_abbreviations(text: str, words: list[str]) -> None:
    assert spoken(text) == words


def test_the_final_dot_stays_only_with_an_abbreviation() -> None:
    assert written("Dr. No said no. So did Mrs. X, etc.") == ["Dr.", "No", "said", "no", "So", "did", "Mrs.", "X", "etc."]
    assert written("etc... U.S.A. p.m.") == ["etc", "U.S.A.", "p.m."]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NASA UNESCO NATO", ["nasa", "unesco", "nato"]),
        ("the FBI, IBM, HTML and the EU", ["the", "f b i", "i b m", "h t m l", "and", "the", "e u"]),
        ("I said NO, STOP, PLEASE", ["i", "said", "no", "stop", "please"]),
        ("US firm", ["u s", "firm"]),
        ("CDs, FBI's, NASA's", ["c d's", "f b i's", "nasa's"]),
        ("HELLO WORLD IT IS NOT THE FBI", ["hello", "world", "it", "is", "not", "the", "f b i"]),
        ("Henry VIII Louis XIV's", ["henry", "the eighth", "louis", "the fourteenth's"]),
        ("World War II, Chapter IV", ["world", "war", "two", "chapter", "four"]),
        ("an IV drip, Malcolm X, Elizabeth I know", ["an", "i v", "drip", "malcolm", "x", "elizabeth", "i", "know"]),
        ("\u2167", ["eight"]),
        ("LVIII, Super Bowl LVIII, in MMXXIV", ["fifty eight", "super", "bowl", "fifty eight", "in", "twenty twenty four"]),
        ("Chapter XLII, the XIV", ["chapter", "forty two", "the", "fourteen"]),
        ("MIX, CIVIC, a CD, XL", ["mix", "civic", "a", "c d", "x l"]),
        ("MP3 B2B H2O F-16 COVID-19", ["m p three", "b two b", "h two o", "f sixteen", "covid nineteen"]),
    ],
)
def test_capitals(text: str, words: list[str]) -> None:
    assert spoken(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "which CHURCH do the SMITHS worship in",
        "alimony HARMS a divorced man's WEALTH",
        "IT'S impossible, HE'S late, WHO'S there, LET'S go",
        "the FIRST NEWS of the WORLD, TOM",
        "NO, I SAID SO, GIVE IT TO US",
        "tell US now, all of US, between US and them, let US go",
        "WHO did IT",
        "HMM, I DON'T know",
    ],
)
def test_words_in_capitals_for_stress_are_words(text: str) -> None:
    assert spoken(text) == spoken(text.lower())


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("the US economy", "u s"),
        ("pay in US dollars", "u s"),
        ("US Navy", "u s"),
        ("THE US GOVERNMENT HAS NOT SAID SO", "u s"),
        ("US-based", "u s based"),
        ("the IT team", "i t"),
        ("call IT support", "i t"),
        ("the WHO said", "w h o"),
        ("the SEC", "s e c"),
        ("at UCLA", "u c l a"),
    ],
)
def test_initialisms_are_spelled_whatever_the_dictionary_has(text: str, letters: str) -> None:
    assert letters in spoken(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("state-of-the-art", ["state of the art"]),
        ("20-year-old", ["twenty year old"]),
        ("and/or", ["and or"]),
        ("AT&T, Tom & Jerry", ["a t and t", "tom", "and", "jerry"]),
        ("C++ C# A+ 18+", ["c plus plus", "c sharp", "a plus", "eighteen plus"]),
        ("#metoo #1 @user", ["hashtag metoo", "number one", "at user"]),
        ("john.doe@example.com", ["john dot doe at example dot com"]),
        ("http://example.com/path?x=1.", ["example dot com slash path question mark x equals one"]),
        ("(https://a.org), www.b.org", ["a dot org", "w w w dot b dot org"]),
        ("word(s)", ["words"]),
        ("\u03b1-helix \u03c0", ["alpha helix", "pi"]),
        ("don't O'Brien's o\u2019clock", ["don't", "o'brien's", "o'clock"]),
        ("don`t it`s `code`", ["don't", "it's", "code"]),
        ("goin' nothin\u2019", ["going", "nothing"]),
        ("\u2019tis \u2018em 'cause", ["tis", "'em", "'cause"]),
        ("I 'll go", ["i", "will", "go"]),
        ("rock 'n' roll", ["rock", "'n", "roll"]),
    ],
)
def test_compounds(text: str, words: list[str]) -> None:
    assert spoken(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("caf\u00e9 cafe\u0301 na\u00efve", ["cafe", "cafe", "naive"]),
        ("\ufb01ne stra\u00dfe \u0141\u00f3d\u017a \u00c6on", ["fine", "strasse", "lodz", "aeon"]),
        ("\uff28\uff49", ["hi"]),
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zero", "width"]),
        ("\U0001f600 he\U0001f600llo \u2764\ufe0f", ["he", "llo"]),
        ("\u0442\u0435\u0441\u0442 \u4e16\u754c hello\u4e16\u754c", ["", "", "hello"]),
        ("a\x00b \x07", ["a", "b"]),
        ("\ud800x", ["x"]),
    ],
)
def test_unicode(text: str, words: list[str]) -> None:
    assert spoken(text) == words
