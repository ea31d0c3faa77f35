"""The base class of every settings section, and the types they share."""

from __future__ import annotations

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
    """Require https, or http on loopback, as anyone who can alter the keys in transit can forge tokens. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        return
    raise ValueError("an https URL is needed (http only on localhost)")
