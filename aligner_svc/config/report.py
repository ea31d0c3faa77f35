"""Loading the settings with the source of each value, readable faults and misspelled variables."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from aligner_svc.config.settings import toml_file

CONFIG_VARIABLE = "ALIGNER_CONFIG"
_PREFIX = "ALIGNER_"
_DELIMITER = "__"

# What Kubernetes sets in every pod for a Service named "aligner".
_KUBERNETES = re.compile(r"ALIGNER_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")

_Settings = TypeVar("_Settings", bound=BaseSettings)
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Override:
    """A value from the command line: the flag, for messages, and the field that it sets, e.g. ("server", "listen")."""

    flag: str
    path: _Path
    value: object


@dataclass(frozen=True, slots=True)
class Row:
    """One setting in force. `key` is dotted, as in TOML; `origin` is the file or variable; secrets are asterisks."""

    key: str
    value: Any
    source: Literal["default", "file", "environment"]
    origin: str = ""


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """An ALIGNER_* variable that sets nothing, and the most similar valid name, if any."""

    name: str
    nearest: str | None

    def __str__(self) -> str:
        return f"{self.name} sets nothing" + (f"; did you mean {self.nearest}?" if self.nearest else "")


class SettingsProblem(Exception):  # noqa: N818 - an expected outcome, reported to the user
    """Invalid settings. `lines` describe the faults, one per line."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[_Settings]):
    """The settings, and the raw values of each of their sources."""

    settings: _Settings
    environment: Mapping[str, Any]
    file: Mapping[str, Any]
    file_path: Path

    def rows(self) -> list[Row]:
        """All settings, in the order of the model."""
        values = self.settings.model_dump(mode="json")
        return [self._row(path, _get(values, path)) for path in _leaves(type(self.settings))]

    def _row(self, path: _Path, value: Any) -> Row:
        key = ".".join(path)
        if _has(self.environment, path):
            return Row(key, value, "environment", _variable(path))
        if _has(self.file, path):
            return Row(key, value, "file", str(self.file_path))
        return Row(key, value, "default")


def load(settings_class: type[_Settings], overrides: Sequence[Override] = ()) -> Loaded[_Settings]:
    """Load the settings: `overrides` take precedence over the environment, which does over the file. Raises SettingsProblem."""
    file_path = toml_file()
    file = _read_file(file_path)
    try:
        environment = EnvSettingsSource(settings_class)()
        settings = settings_class(**_nest(overrides))
    except SettingsError as error:
        # Only a section given as JSON in a variable can fail here; the text names the section.
        section = re.search(r'field "(\w+)"', str(error))
        name = _variable((section[1],)) if section else "environment"
        raise SettingsProblem([f"{name}: not valid JSON"]) from None
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        valid = list(_leaves(settings_class))
        raise SettingsProblem(
            [_line(fault, valid, overrides, environment=environment, file=file, file_path=file_path) for fault in faults]
        ) from None
    return Loaded(settings, environment, file, file_path)


def unknown_variables(settings_class: type[BaseSettings], others: Iterable[str] = ()) -> list[UnknownVariable]:
    """ALIGNER_* variables that are neither a setting nor in `others`: a misspelled name is ignored otherwise."""
    valid = {CONFIG_VARIABLE, *others}
    for path in _leaves(settings_class):
        # A section may also be given as JSON in the variable with its name.
        valid |= {_name(path[:depth]) for depth in range(1, len(path) + 1)}
    unknown = (name for name in os.environ if name.upper().startswith(_PREFIX) and name.upper() not in valid)
    return [
        UnknownVariable(name, _nearest(name.upper(), sorted(valid)))
        for name in sorted(unknown)
        if not _KUBERNETES.fullmatch(name)
    ]


def _read_file(path: Path) -> Mapping[str, Any]:
    """Read the TOML file. A missing one is empty, unless the user named it in the variable. Raises SettingsProblem."""
    if CONFIG_VARIABLE in os.environ and not path.is_file():
        raise SettingsProblem([f"{CONFIG_VARIABLE}: {path} is not a file"])
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsProblem([f"{path}: not valid TOML: {_lower_first(str(error))}"]) from None
    except OSError as error:
        raise SettingsProblem([f"{path}: {_lower_first(error.strerror or 'cannot be read')}"]) from None


def _line(
    fault: ErrorDetails,
    valid: Sequence[_Path],
    overrides: Sequence[Override],
    *,
    environment: Mapping[str, Any],
    file: Mapping[str, Any],
    file_path: Path,
) -> str:
    """One fault, under the flag, variable or key with which the value was set."""
    path = tuple(str(part) for part in fault["loc"])
    said = _lower_first(fault["msg"].removeprefix("Value error, "))
    if not path:  # a rule between sections, whose text names the settings
        return said
    flag = next((override.flag for override in overrides if override.path == path), None)
    if flag:
        name, names = flag, []
    elif _has(environment, path):
        name, names = _variable(path), [_name(known) for known in valid]
        if name.upper() != _name(path):
            name = f"{name} ({'.'.join(path)})"
    elif _has(file, path):
        name, names = f"{file_path}: {'.'.join(path)}", [".".join(known) for known in valid]
    else:
        name, names = ".".join(path), []
    if fault["type"] != "extra_forbidden":
        return f"{name}: {said}"
    nearest = _nearest(_name(path) if _has(environment, path) else ".".join(path), names)
    return f"{name}: no such setting" + (f"; did you mean {nearest}?" if nearest else "")


def _leaves(model: type[BaseModel], prefix: _Path = ()) -> Iterator[_Path]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name)


def _name(path: _Path) -> str:
    return _PREFIX + _DELIMITER.join(path).upper()


def _variable(path: _Path) -> str:
    """The variable that set a value, in its actual spelling: its own, or that of a section around it in JSON."""
    present = {name.upper(): name for name in os.environ}
    names = [_name(path[:depth]) for depth in range(len(path), 0, -1)]
    return next((present[name] for name in names if name in present), names[0])


def _nest(overrides: Sequence[Override]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for override in overrides:
        branch = tree
        for part in override.path[:-1]:
            branch = branch.setdefault(part, {})
        branch[override.path[-1]] = override.value
    return tree


_ABSENT = object()


def _get(tree: Mapping[str, Any], path: _Path) -> Any:
    value: Any = tree
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _has(tree: Mapping[str, Any], path: _Path) -> bool:
    return _get(tree, path) is not _ABSENT


def _nearest(name: str, valid: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, valid, n=1, cutoff=0.7)), None)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
