"""Which channels a run reads if `image.channels` is not set: all three colours of RGB images, else the first channel.

Only the first bytes of files are read, without any library, since this runs whenever the workflow is parsed. Where they
do not tell how many channels there are (CZI, ND2, LIF, Zarr, several pages), the stage that reads the file checks it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.settings.schema import ImageConfig, Settings

_MOST_SLIDES = 64  # looked at, so that planning does not grow with the number of slides
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TIFF = {b"II*\0": "<HHI4s", b"MM\0*": ">HHI4s", b"II+\0": "<HHQ8s", b"MM\0+": ">HHQ8s"}  # with their entries
_DESCRIPTION, _PHOTOMETRIC, _SAMPLES = 270, 262, 277
_DESCRIBED, _MOST_ENTRIES = 2048, 4096
_PALETTE, _COLOURS = 3, (2, 6)  # photometric: RGB, YCbCr


def with_channels(settings: Settings, images: Sequence[Path], slides: Sequence[Path]) -> tuple[Settings, list[str]]:
    """Return settings in which `image.channels` is set, and a line for the user if colours were chosen.

    Parameters
    ----------
    images : sequence of Path
        All training images; empty if nothing is trained.
    slides : sequence of Path
        Slides to segment. Up to 64 of them are looked at, and of training images if channels are set.

    Raises
    ------
    SlidemillError
        If training images, given networks and slides differ in the number of channels, or have no such channel.
    """
    if "channels" in settings.image.model_fields_set or settings.image.series is not None:
        _check_chosen(settings.image, images, slides)
        return settings, []
    learned = _named_by_count([*_of_networks(settings), *_of_files(images)])
    if len(learned) > 1:
        raise SlidemillError(f"{_both(learned)}; set image.channels, or give them the same number of channels")
    if not learned:
        return settings, []
    ((wanted, source),) = learned.items()
    seen = _of_files(_some(slides))
    others = [(name, count) for name, count in seen if count != wanted]
    if others and len(others) == len(seen):
        both = _both(learned | _named_by_count(others))
        raise SlidemillError(f"{both}; set image.channels, or segment slides with as many channels as were learned")
    lines = [f"image.channels is not set: the three colours are read, as of {source}"] if wanted == 3 else []
    if others:
        both = _both(learned | _named_by_count(others))
        lines.append(f"{len(others)} of {len(seen)} slides looked at differ: {both}")
    image = settings.image.model_copy(update={"channels": list(range(wanted))})
    return settings.model_copy(update={"image": image}), lines


def _check_chosen(image: ImageConfig, images: Sequence[Path], slides: Sequence[Path]) -> None:
    """Refuse a number of a channel that a training image, or every slide that was looked at, does not have."""
    highest = max((one for one in image.channels if isinstance(one, int)), default=0)
    if image.series is not None or image.pages == "channels":
        return
    for seen, may_differ in ((_of_files(_some(images)), False), (_of_files(_some(slides)), True)):
        without = [(name, count) for name, count in seen if count <= highest]
        if without and (len(without) == len(seen) or not may_differ):
            raise SlidemillError(
                f"image.channels: no channel {highest}: {_both(_named_by_count(without[:1]))}, counted from 0"
            )


def _some(paths: Sequence[Path]) -> Sequence[Path]:
    return paths[:: -(-len(paths) // _MOST_SLIDES) or 1]


def header_channels(path: Path) -> int | None:
    """Return 3 if the header of a file says RGB, 1 if grey, both without opacity; None if it does not tell."""
    try:
        with path.open("rb") as file:
            head = file.read(26)
            if head.startswith(_PNG):
                return 1 if head[25] in (0, 4) else 3
            if head.startswith(_JPEG):
                return _of_jpeg(file)
            return _of_tiff(file, _TIFF[head[:4]]) if head[:4] in _TIFF else None
    except (OSError, IndexError, struct.error):  # a folder, or a damaged file: the stage that reads it says so
        return None


def _of_files(paths: Iterable[Path]) -> list[tuple[str, int]]:
    return [(str(path), count) for path in paths if (count := header_channels(path))]


def _of_networks(settings: Settings) -> Iterator[tuple[str, int]]:
    """Yield the channels of the networks that the user brought; whoever loads one checks its card."""
    for name, model in settings.models.items():
        if model.checkpoint:
            with suppress(SlidemillError):
                count = read_json(Path(model.checkpoint).with_name("model.json")).get("in_channels")
                if isinstance(count, int) and count > 0:
                    yield f"models.{name}.checkpoint", count


def _named_by_count(found: Iterable[tuple[str, int]]) -> dict[int, str]:
    """Return one name for each number of channels, the first."""
    names: dict[int, str] = {}
    for name, count in found:
        names.setdefault(count, name)
    return names


def _both(names: dict[int, str]) -> str:
    return ", ".join(f"{name} has {count} channel{'s' * (count > 1)}" for count, name in names.items())


def _of_jpeg(file: BinaryIO) -> int | None:
    """Find the frame header: a marker, its length, bits, rows, columns, components (ITU-T T.81, B.2.2)."""
    file.seek(2)
    while True:
        marker, length = struct.unpack(">HH", file.read(4))
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            count = file.read(6)[5]
            return count if count in (1, 3) else None
        file.seek(length - 2, 1)


def _of_tiff(file: BinaryIO, entry: str) -> int | None:
    """Look at the first directory (TIFF 6.0, BigTIFF)."""
    order, is_big = entry[0], "Q" in entry
    offset = order + ("Q" if is_big else "I")
    file.seek(8 if is_big else 4)
    file.seek(*struct.unpack(offset, file.read(struct.calcsize(offset))))
    (entries,) = struct.unpack(order + ("Q" if is_big else "H"), file.read(8 if is_big else 2))
    listed = file.read(min(entries, _MOST_ENTRIES) * struct.calcsize(entry))
    found = {tag: value for tag, *_, value in struct.iter_unpack(entry, listed)}
    photometric, samples = (
        struct.unpack(order + "H", found[tag][:2])[0] if tag in found else 1 for tag in (_PHOTOMETRIC, _SAMPLES)
    )
    if photometric in _COLOURS:
        return 3
    if _DESCRIPTION in found:  # it may say that pages are channels, or that a palette is for display only
        file.seek(*struct.unpack(offset, found[_DESCRIPTION][: struct.calcsize(offset)]))
        description = file.read(_DESCRIBED)
        if b"ImageJ" in description or b"OME" in description:
            return None
    return None if samples != 1 else 3 if photometric == _PALETTE else 1
