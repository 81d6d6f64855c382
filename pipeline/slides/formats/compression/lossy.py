"""Compressions that change numbers: good enough for a picture, not for the ids of a label image."""

from __future__ import annotations

from typing import Any

from tifffile import COMPRESSION

from pipeline.slides.formats.compression.stored import JPEG2000, stored_bytes

_ALWAYS = {
    **dict.fromkeys((COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.ALT_JPEG, COMPRESSION.JPEG_LOSSY), "JPEG"),
    **dict.fromkeys((COMPRESSION.JPEGXR, COMPRESSION.JPEGXR_NDPI), "JPEG XR"),
    **dict.fromkeys((COMPRESSION.JPEGXL, COMPRESSION.JPEGXL_DNG), "JPEG XL"),
    **{COMPRESSION.LERC: "LERC", COMPRESSION.PIXARLOG: "PixarLog", COMPRESSION.JETRAW: "Jetraw"},
}
_HEAD_BYTES = 1024
_CODING_STYLE, _TRANSFORM_AT = b"\xff\x52", 13  # ISO/IEC 15444-1, A.6.1: 1 = reversible


def lossy_compression(page: Any) -> str:
    """Return the name of the compression of a TIFF page if it changed its numbers, else an empty text."""
    if page.compression in _ALWAYS:
        return _ALWAYS[page.compression]
    if page.compression in JPEG2000:
        head = _head_of(page)
        at = head.find(_CODING_STYLE) + _TRANSFORM_AT
        return "" if _CODING_STYLE in head and head[at : at + 1] == b"\1" else "JPEG 2000"
    if page.compression in (COMPRESSION.WEBP, COMPRESSION.WEBP_DEPRECATED):
        return "" if b"VP8L" in _head_of(page) else "WebP"
    return ""


def _head_of(page: Any) -> bytes:
    """Return the beginning of the first tile or strip that has data."""
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        if length:
            with stored_bytes(page) as files:
                return files.read(page.parent.filehandle, start, min(length, _HEAD_BYTES))
    return b""
