"""The base class of every settings section, and the types they share."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_settings import NoDecode


class Section(BaseModel):
    """One concern's settings: a misspelled name is an error, and nothing changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def split_names(value: Any) -> Any:
    """From a variable: names with commas between them. From the file: a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_names)]


def check_url(value: str) -> None:
    """https, or http on loopback: whoever can change the keys on their way can sign as the issuer. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        return
    raise ValueError("an https URL is needed (http on localhost alone)")
