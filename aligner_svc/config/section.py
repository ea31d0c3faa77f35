"""The base class of every settings section, and the types they share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_settings import NoDecode


class Section(BaseModel):
    """A section of the settings: unknown names are errors, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def split_names(value: Any) -> Any:
    """Split the comma-separated names of a variable; a list from the file is returned as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_names)]


def check_url(value: str) -> None:
    """Raises ValueError unless it is https, or http on loopback: anyone who can alter the keys can forge tokens."""
    parts = urlsplit(value)
    host = parts.hostname or ""
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host))):
        raise ValueError("an https URL is needed (http only on localhost)")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: localhost or a loopback address. Does not resolve names."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def one_of(kind: str, known: Collection[str]) -> Callable[[str], str]:
    """A validator for a name that has to be one of `known`, which may grow until it runs."""

    def check(value: str) -> str:
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            raise ValueError(f"no such {kind}: " + (f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"))
        return value

    return check
