"""The files of a Zarr array as a store that reads nothing else: no link that leads out, no pipe, no chunk too large."""

from __future__ import annotations

import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from pipeline.project.drop.image_files import why_not_inside
from pipeline.slides.formats.compression.chunk_size import decoded_bytes
from pipeline.slides.formats.image import check_budget


class ZarrFiles(LocalStore):
    """The files below ``folder``; raises ValueError for one that is no regular file, lies elsewhere, or is too large.

    Parameters
    ----------
    folder : Path
        Of the array.
    slide : Path
        What links may lead to: files in this folder.
    budget_bytes : int
        Largest file, and largest decoded chunk.

    Attributes
    ----------
    codec : str
        Name of the compression of chunks, as soon as it is known.
    """

    codec: str = ""

    def __init__(self, folder: Path, *, slide: Path, budget_bytes: int) -> None:
        super().__init__(folder, read_only=True)
        self._slide, self._budget_bytes = slide, budget_bytes
        self._why_not_inside = lru_cache(why_not_inside)  # of folders: they are few

    def _check(self, key: str) -> None:
        place = Path(self.root) / key
        try:
            state = place.lstat()
        except OSError:  # an absent chunk
            return
        is_plain = stat.S_ISREG(state.st_mode) and not self._why_not_inside(place.parent, self._slide)
        if not is_plain and (reason := why_not_inside(place, self._slide)):
            raise ValueError(reason)
        check_budget(f"{place.name}, before it is decoded,", state.st_size, self._budget_bytes)

    def _within_budget(self, content: Any) -> Any:
        if content is not None and self.codec:
            needed = decoded_bytes(self.codec, content.to_bytes(), self._budget_bytes)
            check_budget("a chunk", needed, self._budget_bytes)
        return content

    async def get(self, key: str, *more: Any, **options: Any) -> Any:
        """Return the content of a file, None if there is none."""
        self._check(key)
        return self._within_budget(await super().get(key, *more, **options))

    def get_sync(self, key: str, *more: Any, **options: Any) -> Any:
        """Return the same, in newer versions of zarr."""
        self._check(key)
        return self._within_budget(super().get_sync(key, *more, **options))

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        """Return parts of files, as for the chunks of a shard."""
        requests = list(key_ranges)
        for key, _ in requests:
            self._check(key)
        return await super().get_partial_values(prototype, requests)
