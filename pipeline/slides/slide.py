"""Slides: image files of any size and format, read by region, with the planes and the pixel size that were chosen.

What goes in is a path and a view (the section ``image`` of the configuration), what comes out is a :class:`Slide` whose
pixels are (channel, row, column). Headers are checked before a pixel is decoded; whatever is wrong with a file becomes
one :class:`SlideError` that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.formats import open_series
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.planes import Level, Pixels, pick_planes, pick_series
from pipeline.slides.resampling import Picked, Resampled

_AS_FINE = 1 + 1e-6  # a level counts as fine enough in spite of rounding


@dataclass(frozen=True, kw_only=True)
class Slide:
    """An open image as its view shows it.

    Attributes
    ----------
    path : Path
    levels : tuple of Level
        Resolutions, finest first.
    file_shape : (rows, columns)
        Of the finest resolution in the file, which the view may leave out.
    pixel_size_um : (row, column) or None
        Of ``levels[0]``, µm: that of the file, else the fallback of the view.
    channel_names : tuple of str
        As in the file; the number of the channel where it has no names.
    """

    path: Path
    levels: tuple[Level, ...]
    file_shape: tuple[int, int]
    pixel_size_um: PixelSize | None = None
    channel_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the finest level."""
        return self.levels[0].shape

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.levels[0].channels

    def read(self, rows: slice, columns: slice, level: int = 0) -> Pixels:
        """Decode a region into (channel, row, column); raise :class:`SlideError` if its data are damaged."""
        with _as_slide_error(self.path):
            return self.levels[level].read(rows, columns)

    def read_all(self, level: int = 0) -> Pixels:
        """Decode a whole level into (channel, row, column)."""
        return self.read(slice(None), slice(None), level)


@contextmanager
def open_slide(path: Path, *, memory_mb: int, view: ImageConfig | None = None) -> Iterator[Slide]:
    """Open an image file and close it at the end of the block.

    Parameters
    ----------
    path : Path
        A file of any format in ``pipeline.slides.formats``, or the folder of an OME-Zarr image.
    memory_mb : int
        Most memory that decoding one piece (tile, strip, chunk, plane; a whole PNG) may take.
    view : ImageConfig or None
        Channels, plane, series and pixel size. None: the first series as it is, which must not be a stack; so masks
        and label images are opened.

    Raises
    ------
    SlideError
        If the file cannot be read, is damaged, or does not have what the view asks for.
    """
    with ExitStack() as stack:
        with _as_slide_error(path):
            image = pick_series(open_series(path, memory_mb * 10**6, stack), view, path).open()
            levels, names = pick_planes(image, view, path)
            slide = Slide(
                path=path,
                levels=tuple(levels),
                file_shape=levels[0].shape,
                pixel_size_um=image.pixel_size_um,
                channel_names=names,
            )
            slide = _seen(slide, view) if view else slide
        yield slide


@contextmanager
def open_plane(path: Path, *, memory_mb: int, like: Slide | None = None) -> Iterator[Slide]:
    """Open a file with one channel, as label images are, on the grid of ``like``.

    Raises
    ------
    SlideError
        If the file cannot be read, has more than one channel, or not the shape of ``like``.
    """
    with open_slide(path, memory_mb=memory_mb) as slide:
        if slide.channels != 1:
            raise SlideError(
                f"{path}: a label image has 1 channel, this file has {slide.channels}; save it as a grey image"
            )
        yield on_grid_of(like, slide) if like else slide


def on_grid_of(slide: Slide, labels: Slide) -> Slide:
    """Return a label image on the grid of a slide: as it is, or picked at pixel centres if it has the file's shape.

    Raises
    ------
    SlideError
        If it has neither shape.
    """
    if labels.shape == slide.shape:
        return labels
    if labels.shape != slide.file_shape:
        also = f" (or of {slide.file_shape} px, as its file)" if slide.file_shape != slide.shape else ""
        raise SlideError(
            f"{labels.path}: labels of {labels.shape} px (rows, columns) for an image of {slide.shape} px{also} "
            f"({slide.path}); give them the same shape"
        )
    return replace(labels, levels=(Picked(source=labels.levels[0], shape=slide.shape, step=slide_step(slide)),))


def slide_step(slide: Slide) -> tuple[float, float]:
    """Return how many pixels (row, column) of its file a pixel of the slide is wide."""
    level = slide.levels[0]
    if not isinstance(level, Resampled):
        return slide.file_shape[0] / slide.shape[0], slide.file_shape[1] / slide.shape[1]
    return tuple(  # type: ignore[return-value]
        step * whole / part for step, whole, part in zip(level.step, slide.file_shape, level.source.shape, strict=True)
    )


def _seen(slide: Slide, view: ImageConfig) -> Slide:
    """Return the slide at the level or the pixel size that the view chooses."""
    fallback = view.fallback_pixel_size_um
    size = slide.pixel_size_um or ((fallback, fallback) if fallback else None)
    if view.pixel_size_um is None:
        if view.level >= len(slide.levels):
            raise SlideError(
                f"{slide.path}: level {view.level} asked for (image.level, counted from 0), the file has "
                f"{len(slide.levels)}; choose another, or image.pixel_size_um"
            )
        levels = slide.levels[view.level :]
        return replace(slide, levels=levels, pixel_size_um=size and _size_at(levels[0], slide.file_shape, size))
    if size is None:
        raise SlideError(
            f"{slide.path}: no pixel size in the file, and image.pixel_size_um asks for {view.pixel_size_um} µm; "
            "state it in the column pixel_size_um of the sample sheet, or in image.fallback_pixel_size_um"
        )
    return _at_pixel_size(slide, size, view.pixel_size_um)


def _size_at(level: Level, file_shape: tuple[int, int], size: PixelSize) -> PixelSize:
    """Return the pixel size of a level, all levels covering the same ground."""
    return size[0] * file_shape[0] / level.shape[0], size[1] * file_shape[1] / level.shape[1]


def _at_pixel_size(slide: Slide, size: PixelSize, target_um: float) -> Slide:
    """Return the slide resampled from the coarsest level that is at least as fine as the target."""
    sizes = [_size_at(level, slide.file_shape, size) for level in slide.levels]
    fine = [number for number, one in enumerate(sizes) if max(one) <= target_um * _AS_FINE]
    chosen = fine[-1] if fine else 0
    source = slide.levels[chosen]
    steps = target_um / sizes[chosen][0], target_um / sizes[chosen][1]
    shape = tuple(max(1, round(length / step)) for length, step in zip(source.shape, steps, strict=True))
    resampled = Resampled(source=source, shape=(shape[0], shape[1]), step=steps)
    return replace(slide, levels=(resampled, *slide.levels[len(fine) :]), pixel_size_um=(target_um, target_um))


@contextmanager
def _as_slide_error(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into one line about the file. Decoders of damaged files raise anything."""
    try:
        yield
    except SlideError:
        raise
    except MemoryError as error:
        raise SlideError(f"{path}: does not fit into memory: {error}") from error
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror or _line(error)}") from error
    except Exception as error:
        raise SlideError(f"{path}: cannot be read: {_line(error)}; mend or remove the file") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
