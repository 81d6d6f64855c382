"""Reading of YAML: a small mapping, or one line that says what is wrong, before anything unfolds it.

Anchors let a short file stand for billions of values, and libraries follow deep nesting by recursion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.base.errors import ConfigError

_MOST_VALUES = 100_000
_DEEPEST = 50
_MERGE = "<<"
_LONGEST_KEY = 50


@dataclass
class _Open:
    """A list or mapping whose end has not come yet: how many values it has so far, those below it included."""

    anchor: str | None
    is_mapping: bool
    children: int = 0
    values: int = 1
    keys: set[tuple[str, bool]] = field(default_factory=set)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file with keys at its top level; empty for an empty one.

    Raises
    ------
    ConfigError
        One line that names the file and the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
        check_yaml(text)
        content = yaml.safe_load(text) or {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{path}: {line}{error.problem}; correct it") from error
    except OSError as error:
        raise ConfigError(
            f"{path.absolute()}: cannot be read: {error.strerror}; go to the project folder, or name it with "
            "--directory (`slidemill init` makes one)"
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: no keys at its top level, such as `classes:`; correct it")
    return content


def check_yaml(text: str) -> None:
    """Raise ValueError where a text stands for too many values, is nested too deeply, or has a wrong key.

    That is a list, or one that is there twice: YAML would take the last one.
    """
    sizes: dict[str | None, int] = {}
    is_open: list[_Open] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        try:
            _follow(event, is_open, sizes)
        except ValueError as error:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ValueError(f"line {line}: {error}; correct it") from None


def _follow(event: Any, is_open: list[_Open], sizes: dict[str | None, int]) -> None:
    """Count one event; ``sizes`` are those of complete values by their anchor."""
    if isinstance(event, yaml.CollectionStartEvent):
        if is_open and is_open[-1].is_mapping and is_open[-1].children % 2 == 0:
            raise ValueError("a list or mapping cannot be a key")
        if len(is_open) == _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} levels deep")
        is_open.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
    elif isinstance(event, yaml.CollectionEndEvent):
        closed = is_open.pop()
        sizes[closed.anchor] = closed.values
        _add(closed.values, is_open)
    elif isinstance(event, yaml.ScalarEvent):
        sizes[event.anchor] = 1
        if is_open and is_open[-1].is_mapping and is_open[-1].children % 2 == 0:
            key = event.value, event.implicit[0]  # whether it is plain: 1 and "1" are two keys
            if key in is_open[-1].keys and event.value != _MERGE:
                raise ValueError(f"{_shown(event.value)} is there twice")
            is_open[-1].keys.add(key)
        _add(1, is_open)
    elif isinstance(event, yaml.AliasEvent):
        if event.anchor in {one.anchor for one in is_open}:
            raise ValueError(f"{event.anchor!r} refers to what it is part of")
        _add(sizes.get(event.anchor, 1), is_open)


def _shown(key: str) -> str:
    return repr(key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}...")


def _add(values: int, is_open: list[_Open]) -> None:
    if is_open:
        is_open[-1].children += 1
        is_open[-1].values += values
        if is_open[-1].values > _MOST_VALUES:
            raise ValueError(f"its anchors stand for over {_MOST_VALUES} values")
