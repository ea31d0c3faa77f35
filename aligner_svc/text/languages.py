"""Language tags from requests."""

from __future__ import annotations

import re

from aligner_svc.errors import InvalidArgumentError

_MAX_TAG = 35
"""Characters. RFC 5646, section 4.4.1: no registered combination of subtags is longer."""

# The primary subtag is 2-3 letters (ISO 639) or a registered 5-8; 4 letters are reserved.
# Underscores are common from POSIX ("en_US").
_TAG = re.compile(r"([a-z]{2,3}|[a-z]{5,8})(?:[-_][a-z0-9]{1,8})*", re.ASCII | re.IGNORECASE)


def normalise_language(tag: str) -> str:
    """BCP-47 tag to its lower-case primary subtag: "en-GB" -> "en".

    Raises InvalidArgumentError (LANGUAGE_INVALID) for anything that is not a well-formed tag; the caller checks
    whether the language is supported.
    """
    match = _TAG.fullmatch(tag) if len(tag) <= _MAX_TAG else None
    if match is None:
        message = 'language must be a BCP-47 tag such as "en" or "en-GB"'
        raise InvalidArgumentError("LANGUAGE_INVALID", message, field="config.language")
    return match[1].lower()
