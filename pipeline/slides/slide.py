"""Open image files of any size and format as slides that are read by region.

A path and a view (the section ``image`` of the configuration) go in, a :class:`Slide` with (channel, row, column)
pixels comes out. Headers are checked before a pixel is decoded; whatever is wrong with a file becomes one
:class:`SlideError` that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.arrays import Array, LazyArray
from pipeline.base.errors import SlideError, reason_of
from pipeline.settings.schema import ImageConfig
from pipeline.slides.formats import open_series
from pipeline.slides.formats.image import Image, PixelSize, Series
from pipeline.slides.planes import Choice, Pixels, Plane, pick_planes, pick_series, planes_in
from pipeline.slides.resampling import picked, resampled

_ROUNDING = 1 + 1e-6  # a level this much coarser than asked for is fine enough
_MOST_ENLARGED = 8.0  # times, along a side; beyond it, one of the two pixel sizes is wrong
_LARGEST_DIFFERENCE = 0.01  # between the pixel size that is stated and that of the file, without a warning


@dataclass(frozen=True, kw_only=True)
class Slide:
    """An open image with the channels, plane and pixel size that its view chooses.

    Attributes
    ----------
    levels : tuple of (channels, rows, columns) arrays
        Resolutions, finest first.
    file_shape : (rows, columns)
        Of the finest resolution in the file, which the view may leave out.
    step : (row, column)
        How many pixels of the finest resolution in the file a pixel of ``levels[0]`` is wide.
    pixel_size_um : (row, column) or None
        Of ``levels[0]``, µm: what the view states, else that of the file, else the fallback of the view.
    channel_names : tuple of str
        As in the file; numbers if it has no names.
    file_level : int
        The level of the file that ``levels[0]`` is made of.
    choice : Choice or None
        The planes of the file; None if it is no image.
    warnings : tuple of str
        What its file says that was not followed.
    series : sequence of Series
        All images of its file, which are open as long as the slide is.
    """

    path: Path
    levels: tuple[Array, ...]
    file_shape: tuple[int, int]
    step: tuple[float, float] = (1.0, 1.0)
    pixel_size_um: PixelSize | None = None
    channel_names: tuple[str, ...] = ()
    file_level: int = 0
    choice: Choice | None = None
    warnings: tuple[str, ...] = ()
    series: Sequence[Series] = ()

    def inspect(self) -> tuple[str, ...]:
        """Return all warnings about how it is read, also those that take a look at every tile or chunk.

        Raises
        ------
        SlideError
            If none of its pixels are in the file, or some are lost.
        """
        with _as_slide_error(self.path):
            absent, total = self.choice.count_missing(self.file_level) if self.choice else (0, 1)
            if absent == total:
                raise ValueError(f"all of its {total} tiles or chunks are absent; copy or save it again")
        if not absent:
            return self.warnings
        return (
            *self.warnings,
            f"{absent} of its {total} tiles or chunks ({absent / total:.0%}) are absent, read as empty",
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the finest level."""
        return self.shape_of(0)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.levels[0].shape[0]

    def shape_of(self, level: int) -> tuple[int, int]:
        """Return the rows and columns of a level."""
        _, rows, columns = self.levels[level].shape
        return rows, columns

    def read(self, rows: slice, columns: slice, level: int = 0) -> Pixels:
        """Decode a region into (channel, row, column); raise :class:`SlideError` if its data are damaged."""
        with _as_slide_error(self.path):
            pixels: Pixels = self.levels[level][:, rows, columns]
            return pixels

    def read_all(self, level: int = 0) -> Pixels:
        """Decode a whole level into (channel, row, column)."""
        return self.read(slice(None), slice(None), level)

    def plane(self, level: int = 0) -> LazyArray:
        """Return the first channel of a level as a (rows, columns) array."""

        def read(rows: slice, columns: slice) -> Pixels:
            plane: Pixels = self.read(rows, columns, level)[0]
            return plane

        return LazyArray(self.shape_of(level), self.levels[level].dtype, read)


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
        Channels, plane, series and pixel size. None, as for masks and label images: the first series as it is; a stack
        is refused.

    Raises
    ------
    SlideError
        If the file cannot be read, is damaged, or does not have what the view asks for.
    """
    with ExitStack() as stack:
        with _as_slide_error(path):
            series = open_series(path, memory_mb * 10**6, stack)
            slide = replace(_slide(path, pick_series(series, view, path).open(), view), series=series)
        yield slide if view and view.series is not None else _as_one_of(series, slide)


def planes_of(path: Path, view: ImageConfig, *, memory_mb: int) -> list[Plane]:
    """Return the planes of a slide that are segmented one by one, in their order: one, if nothing is ``each``.

    Raises
    ------
    SlideError
        As :func:`open_slide`.
    """
    if not view.each:
        return [Plane(view=view)]
    first = view.model_copy(update=dict.fromkeys(view.each, 0))
    with open_slide(path, memory_mb=memory_mb, view=first) as slide:
        assert slide.choice is not None
        return planes_in(slide.choice.image, view)


@contextmanager
def open_plane(path: Path, *, memory_mb: int, like: Slide | None = None, plane: Plane | None = None) -> Iterator[Slide]:
    """Open a label image, which has one channel, on the grid of the slide ``like``.

    Its pixels are the numbers in the file: palettes and white stored as 0 do not change them. If its slide is a stack
    that is segmented plane by plane, so is the label image, and ``plane`` says which is read.

    Raises
    ------
    SlideError
        If the file cannot be read, has a compression that changes numbers, more than one channel, another shape than
        ``like``, or other planes than the slide of ``plane``.
    """
    with ExitStack() as stack:
        with _as_slide_error(path):
            series = open_series(path, memory_mb * 10**6, stack)
            image = pick_series(series, None, path).open()
            if image.lossy:
                raise ValueError(
                    f"{image.lossy} changes the numbers of a label image; save the original labels as PNG or as TIFF "
                    "with LZW or zlib"
                )
            slide = _as_one_of(series, _slide(path, image.numbers or image, None, plane))
            if slide.channels != 1:
                raise ValueError(
                    f"a label image has 1 channel, this file has {slide.channels}; save a number per pixel, no colours"
                )
        yield on_grid_of(like, slide) if like else slide


def _as_one_of(series: Sequence[Series], slide: Slide) -> Slide:
    """Return a slide with a warning if it is the first of several images of its file, and nobody chose it."""
    if len(series) == 1:
        return slide
    name = f" ({series[0].name})" if series[0].name else ""
    warning = f"the first{name} of its {len(series)} images is read, the others are not; image.series chooses another"
    return replace(slide, warnings=(*slide.warnings, warning))


def _slide(path: Path, image: Image, view: ImageConfig | None, plane: Plane | None = None) -> Slide:
    choice = pick_planes(image, view, path, plane)
    levels = choice.levels
    _, rows, columns = levels[0].shape
    slide = Slide(
        path=path,
        levels=levels,
        file_shape=(rows, columns),
        pixel_size_um=image.pixel_size_um,
        channel_names=choice.channel_names,
        choice=choice,
        warnings=image.warnings,
    )
    return _at_resolution(slide, view) if view else slide


def on_grid_of(slide: Slide, labels: Slide) -> Slide:
    """Return a label image on the grid of a slide: as it is, or picked at pixel centres if it has the file's shape.

    Raises
    ------
    SlideError
        If its shape is neither that of the slide nor that of the file.
    """
    if labels.shape == slide.shape:
        return labels
    if labels.shape != slide.file_shape:
        also = f" (or of {slide.file_shape} px, as its file)" if slide.file_shape != slide.shape else ""
        raise SlideError(
            f"{labels.path}: labels of {labels.shape} px (rows, columns) for an image of {slide.shape} px{also} "
            f"({slide.path}); save both with the same shape"
        )
    return replace(labels, levels=(picked(labels.levels[0], slide.shape, slide.step),))


def _at_resolution(slide: Slide, view: ImageConfig) -> Slide:
    """Return the slide at the level or the pixel size that the view chooses."""
    slide = _with_stated_size(slide, view)
    size = slide.pixel_size_um
    if view.pixel_size_um is None:
        if view.level >= len(slide.levels):
            raise SlideError(
                f"{slide.path}: no level {view.level} (image.level, counted from 0), the file has {len(slide.levels)}; "
                "choose another, or set image.pixel_size_um"
            )
        at_level = replace(slide, levels=slide.levels[view.level :], step=_scaled(slide, view.level, (1.0, 1.0)))
        return replace(at_level, file_level=view.level, pixel_size_um=size and _scaled(slide, view.level, size))
    if size is None:
        raise SlideError(
            f"{slide.path}: no pixel size in the file, and image.pixel_size_um asks for {view.pixel_size_um} µm; "
            "state it in the column pixel_size_um of the sample sheet, or in image.fallback_pixel_size_um"
        )
    return _at_pixel_size(slide, size, view.pixel_size_um)


def _with_stated_size(slide: Slide, view: ImageConfig) -> Slide:
    """Return the slide with the pixel size that the user states, else that of its file, else the fallback."""
    of_file, stated = slide.pixel_size_um, view.stated_pixel_size_um or view.fallback_pixel_size_um
    if stated is None or (of_file and view.stated_pixel_size_um is None):
        return slide
    warnings = slide.warnings
    if of_file and any(abs(size / stated - 1) > _LARGEST_DIFFERENCE for size in of_file):
        warnings += (f"pixel size {stated:g} µm, as stated by you, instead of {of_file[0]:.4g} µm, as in the file",)
    return replace(slide, pixel_size_um=(stated, stated), warnings=warnings)


def _scaled(slide: Slide, level: int, of_file: tuple[float, float]) -> tuple[float, float]:
    """Return a length (row, column) of the finest resolution at another level: all levels cover the same area."""
    rows, columns = slide.shape_of(level)
    return of_file[0] * slide.file_shape[0] / rows, of_file[1] * slide.file_shape[1] / columns


def _at_pixel_size(slide: Slide, size: PixelSize, target_um: float) -> Slide:
    """Return the slide resampled from the coarsest level that is at least as fine as the target."""
    sizes = [_scaled(slide, level, size) for level in range(len(slide.levels))]
    fine = [level for level, one in enumerate(sizes) if max(one) <= target_um * _ROUNDING]
    chosen = fine[-1] if fine else 0
    steps = target_um / sizes[chosen][0], target_um / sizes[chosen][1]
    _check_steps(slide, chosen, sizes[chosen], target_um, steps)
    rows, columns = (max(1, round(n / step)) for n, step in zip(slide.shape_of(chosen), steps, strict=True))
    finest = resampled(slide.levels[chosen], (rows, columns), steps)
    return replace(
        slide,
        levels=(finest, *slide.levels[len(fine) :]),
        step=_scaled(slide, chosen, steps),
        pixel_size_um=(target_um, target_um),
        file_level=chosen,
    )


def _check_steps(slide: Slide, level: int, size: PixelSize, target_um: float, steps: tuple[float, float]) -> None:
    """Refuse a target that would enlarge pixels many times, or leave less than one pixel."""
    what = f"{slide.path}: image.pixel_size_um of {target_um:g} µm would"
    advice = "correct it, or state the pixel size of the slide in the column pixel_size_um of the sample sheet"
    if min(steps) < 1 / _MOST_ENLARGED:
        raise SlideError(
            f"{what} enlarge its pixels of {max(size):.4g} µm {1 / min(steps):.4g} times, the limit is "
            f"{_MOST_ENLARGED:g}; {advice}"
        )
    if any(length < step for length, step in zip(slide.shape_of(level), steps, strict=True)):
        raise SlideError(
            f"{what} shrink its {slide.file_shape} pixels of {min(size):.4g} µm to less than one; {advice}"
        )


@contextmanager
def _as_slide_error(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into one line about the file. Decoders of damaged files raise anything."""
    try:
        yield
    except SlideError:
        raise
    except MemoryError as error:
        raise SlideError(f"{path}: does not fit into memory: {reason_of(error)}; give the job more memory") from error
    except Exception as error:
        reason = reason_of(error)
        advice = "" if ";" in reason else "; fix, replace or remove the file"  # our readers add their own
        raise SlideError(f"{path}: cannot be read: {reason}{advice}") from error
