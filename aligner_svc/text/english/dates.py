"""Dates, times of day, years and decades."""

from __future__ import annotations

import re

from aligner_svc.text.english.context import Context
from aligner_svc.text.english.numbers import Words, cardinal, digits, ordinal, plural, two_digits, year
from aligner_svc.text.english.units import UNITS
from aligner_svc.text.english.wordlists import MONTHS
from aligner_svc.text.readings import either

_MONTH_WORDS = {*MONTHS, "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"}
_YEAR_CUES = frozenset({"in", "since", "of", "by", "until", "till", "from", "year", "ad", "circa", "before", "after", "around"})
_CALENDAR = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})|(\d{1,2})([-/.])(\d{1,2})\6(\d{4}|\d\d)")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?([AaPp]\.?[Mm]\.?)?")
_HOUR = re.compile(r"(\d{1,2})([AaPp]\.?[Mm]\.?)")
_RATIO = re.compile(r"(\d{1,9}):(\d{1,9})")
_DECADE = re.compile(r"'?(\d{2}|\d{4})'?s")
_SHORT_YEAR = re.compile(r"'(\d\d)")
_HALF_OF_DAY = frozenset({"am", "pm", "a.m", "p.m"})
_YEARS = range(1100, 2100)


def calendar(word: str, context: Context) -> Words | None:
    """3/14/2021, 2021-03-14, 14.3.2021; None if it is no date."""
    match = _CALENDAR.fullmatch(word)
    if match is None:
        return None
    if match[1]:
        the_year, month, day, day_first = match[1], int(match[3]), int(match[4]), False
    else:
        if match[6] == "." and len(match[8]) == 2:
            return None  # "1.2.30" is a version
        the_year, month, day, day_first = match[8], int(match[5]), int(match[7]), match[6] == "."
        if day_first or (month > 12 >= day):
            month, day, day_first = day, month, True
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    names = (MONTHS[month - 1],)
    return (*((*ordinal(day), *names) if day_first else (*names, *ordinal(day))), *_read_year(the_year))


def _read_year(text: str) -> Words:
    if len(text) == 2:
        return two_digits(int(text))
    return year(int(text)) if text >= "1000" else cardinal(int(text))


def time_of_day(word: str, context: Context) -> Words | None:
    """10:30, 10:05am, 3pm, 14:00; a ratio such as 16:9 or 2:1; None if it is none of these."""
    if match := _HOUR.fullmatch(word):
        return (*cardinal(int(match[1])), *_letters(match[2]))
    match = _CLOCK.fullmatch(word)
    if match is None or int(match[1]) > 24 or int(match[2]) > 59:
        ratio = _RATIO.fullmatch(word)
        return (*cardinal(int(ratio[1])), "to", *cardinal(int(ratio[2]))) if ratio else None
    hour, minute = int(match[1]), int(match[2])
    words = cardinal(hour)
    half = _letters(match[4] or "")
    if minute or match[3]:
        words += two_digits(minute)
    elif hour > 12:
        words += ("hundred",)
    elif not half and not is_half_of_day(context.after):
        return either((*words, "o'clock"), words)
    if match[3]:
        return words + two_digits(int(match[3])) + half
    return either(words, *_past_the_hour(hour, minute)) + half


def _past_the_hour(hour: int, minute: int) -> list[Words]:
    """Half past ten, quarter to eleven, twenty past three; for a ratio too, as 3:15 may be either."""
    if not minute or not 1 <= hour <= 12:
        return []
    before = minute > 30
    words = cardinal(hour % 12 + 1 if before else hour)
    minutes = 60 - minute if before else minute
    joint = "to" if before else "past"
    if minutes == 30:
        return [("half", "past", *words)]
    if minutes == 15:
        return [("quarter", joint, *words), ("a", "quarter", joint, *words)]
    return [(*cardinal(minutes), joint, *words)]


def _letters(text: str) -> Words:
    return tuple(text.lower().replace(".", ""))


def is_half_of_day(word: str) -> bool:
    """am, PM, a.m."""
    return len(word) <= 4 and word.lower().removesuffix(".") in _HALF_OF_DAY


def half_of_day(word: str, context: Context) -> Words | None:
    """The am of "10 am", which is no verb; None elsewhere."""
    timed = is_half_of_day(word) and (_CLOCK.fullmatch(context.before[:12]) or context.before in _HOURS)
    return _letters(word) if timed else None


_HOURS = frozenset(str(hour) for hour in range(1, 13)) | {f"0{hour}" for hour in range(1, 10)}


def decade(word: str, context: Context) -> Words | None:
    """1990s, '90s, 1900's, '99; None if it is neither."""
    if match := _SHORT_YEAR.fullmatch(word):
        return two_digits(int(match[1]))
    match = _DECADE.fullmatch(word)
    if match is None or match[1][-1] != "0" or match[1] in {"00", "10"}:
        return None
    if len(match[1]) == 2:
        return plural(cardinal(int(match[1])))
    return plural(year(int(match[1]))) if match[1] >= "1000" else None


def day_or_year(word: str, context: Context) -> Words | None:
    """A bare number that its neighbours or its size make a day, a year or a ZIP code; None if it is an ordinary number."""
    size = len(word)
    if not word.isdecimal() or not 0 < size <= 5:
        return None
    number = int(word)
    if size <= 2:
        return either(ordinal(number), cardinal(number)) if 1 <= number <= 31 and _next_to_month(context) else None
    if size == 5:
        return digits(word) if len(context.at(-1)) == 2 and context.at(-1).isupper() else None
    if size == 4 and (number in _YEARS or (number > 1000 and context.before.lower() in _YEAR_CUES)):
        if number >= 2000 and context.after in UNITS:
            return cardinal(number)
        return year(number) if number < 2010 else either(year(number), cardinal(number))
    return None


def _next_to_month(context: Context) -> bool:
    return any(word[:1].isupper() and word.lower().removesuffix(".") in _MONTH_WORDS for word in (context.before, context.after))
