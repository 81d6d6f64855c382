"""Files as stages leave them: complete under their final name or not there at all, and saying where they are from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline import __version__
from pipeline.errors import SlidemillError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it to ``path`` when the block ends well, remove it otherwise.

    What is written there is a file, or a folder where ``path`` does not exist yet.

    Raises
    ------
    SlidemillError
        If the operating system refuses to write (full disk, no permission).
    """
    folder = path.parent / f".partial-{path.name}"  # of its own, so that the file has its suffix from the start
    try:
        shutil.rmtree(folder, ignore_errors=True)  # left behind by a killed job
        folder.mkdir(parents=True)
        temporary = folder / path.name
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as complete:
                os.fsync(complete.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SlidemillError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, all or nothing."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise :class:`SlidemillError` where the file is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SlidemillError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(content, dict):
        raise SlidemillError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def spreadsheet_text(text: str) -> str:
    """Return a cell of a CSV file that no spreadsheet program takes for a formula, with an apostrophe before one."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def sha256(path: Path, *parts: Path) -> str:
    """Return the SHA-256 of the content of a file, in hexadecimal.

    Of a folder, or of a file with ``parts`` (files and folders) beside it, it is that of a list of all files in them:
    a line with SHA-256, two spaces and the path for each.
    """
    if not parts and not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    root = path if path.is_dir() else path.parent
    files = {file for place in (path, *parts) for file in (place.rglob("*") if place.is_dir() else (place,))}
    lines = (f"{sha256(file)}  {file.relative_to(root).as_posix()}\n" for file in sorted(files) if file.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def provenance(stage: str, config: BaseModel | None = None, /, **inputs: str) -> dict[str, Any]:
    """Return what every output carries: stage, package version, resolved settings, and sha256 of named inputs."""
    return {
        "stage": stage,
        "version": __version__,
        "config": config.model_dump(mode="json") if config else {},
        "sha256": inputs,
    }
