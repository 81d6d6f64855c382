"""Only glass is skipped: no annotated nucleus on it, and nothing where glass cannot be told from dim objects."""

import csv
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.base.geometry import Geometry
from pipeline.slides.formats.image import Image
from pipeline.slides.planes import pick_planes
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling import tissue
from pipeline.tiling.grid import Grid, Region
from pipeline.tiling.plan import SlidePlan
from pipeline.tiling.tissue import Tissue, find_tissue, glass_threshold, runs_with_tissue
from tests.support.prediction import plan_of

SIDE = 2048
GLASS = (243, 242, 244)


def slide_of(*levels):
    """A slide of (rows, columns, channels) or (rows, columns) levels."""
    planes = pick_planes(Image(levels=levels, axes="YXS"[: levels[0].ndim]), None, Path("a")).levels
    return Slide(path=Path("a"), levels=planes, file_shape=planes[0].shape[1:])


def glass(generator, colour=GLASS):
    return np.clip(generator.normal(colour, 2, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def stained_glass(generator):
    canvas = glass(generator)
    canvas[500:1200, 300:1500] = (120, 60, 140)
    return canvas


def shrunk(image, factor):
    """A coarser level: the mean of squares."""
    rows, columns = (length // factor * factor for length in image.shape[:2])
    parts = [image[row:rows:factor, column:columns:factor] for row in range(factor) for column in range(factor)]
    return (sum(part.astype(np.uint16) for part in parts) // len(parts)).astype(np.uint8)


def skipped_tiles(slide, tile_px):
    """The write regions of the tiles without tissue."""
    found = find_tissue(slide)
    if found is None:
        return []
    grid = Grid.plan(slide.shape, geometry=Geometry(stride_px=16, context_px=0), tile_px=tile_px, mirror_px=0)
    plan = plan_of(grid, tissue=runs_with_tissue(found, grid))
    return [tile.write for tile in plan.glass()]


def stained(data):
    """Every image of stained tissue with its annotated nuclei, those on glass first."""
    with (data / "dsb2018" / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["channels"] == "3"]
    for row in sorted(rows, key=lambda row: row["style"] != "purple_on_white"):
        yield tuple(tifffile.imread(data / "dsb2018" / kind / f"{row['id']}.tif") for kind in ("images", "labels"))


def test_no_annotated_nucleus_is_in_a_skipped_tile(data, generator):
    """Every stained image of the set, on white glass and on glass of its own background, with and without pyramid."""
    skipped = 0
    clean = glass(generator, (128, 128, 128))
    for number, (image, labels) in enumerate(stained(data)):
        for turn, colour in enumerate((GLASS, np.median(image.reshape(-1, 3), axis=0)), start=number):
            canvas = clean + (np.array(colour) - 128).astype(np.uint8)  # modulo 256: down as well as up
            top, left = (int(generator.integers(SIDE - length)) for length in labels.shape)
            place = (slice(top, top + labels.shape[0]), slice(left, left + labels.shape[1]))
            canvas[place] = image
            nuclei = np.zeros((SIDE, SIDE), dtype=bool)
            nuclei[place] = labels > 0
            levels = [canvas, shrunk(canvas, 4)] if turn % 2 else [canvas]
            for region in skipped_tiles(slide_of(*levels), 64):
                skipped += 1
                assert not nuclei[region.slices].any()
    assert skipped > 10_000


@pytest.mark.parametrize("factor", [1, 4])
def test_a_nucleus_alone_on_the_glass_is_found(factor, data, generator):
    """Cut out along its annotated outline, without anything around it."""
    image, labels = next(stained(data))
    canvas = glass(generator)
    canvas[:256, :320] = image
    centres = []
    for number, nucleus in enumerate(np.unique(labels)[1:]):
        rows, columns = np.nonzero(labels == nucleus)
        top, left = 500 + number // 8 * 190, 100 + number % 8 * 240
        canvas[rows - rows.min() + top, columns - columns.min() + left] = image[rows, columns]
        centres.append((top + np.ptp(rows) // 2, left + np.ptp(columns) // 2))
    found = find_tissue(slide_of(*[canvas] if factor == 1 else [canvas, shrunk(canvas, factor)]))
    assert len(centres) > 50
    for row, column in centres:
        assert found.is_in(Region(top=row, left=column, bottom=row + 1, right=column + 1))


def test_skipped_tiles_of_a_real_slide_are_glass(data):
    with open_slide(data / "formats/derived/CMU-1-Small-Region_pyramid.ome.tif", memory_mb=1000) as slide:
        pixels = slide.read_all()
        skipped = skipped_tiles(slide, 128)
        share = sum(np.prod(region.shape) for region in skipped) / np.prod(slide.shape)
    assert 0.2 < share < 0.5  # 57 % of it is without anything visible, and there is a margin around the rest
    for region in skipped:
        spots = shrunk(np.moveaxis(pixels, 0, -1)[region.slices], 8)
        assert spots.min() > 205


@pytest.mark.parametrize(
    "background", [(0, 0, 0), (12, 12, 12), (128, 128, 128), (243, 200, 220), (150, 160, 170)]
)  # fluorescence, the same with an offset, phase contrast, eosin without glass, a dark lamp
def test_nothing_is_skipped_unless_the_background_is_bright_and_colourless(background, generator):
    canvas = glass(generator, background)
    canvas[500:1200, 300:1500] = (255, 255, 255) if max(background) < 200 else (120, 60, 140)
    assert find_tissue(slide_of(canvas)) is None


def test_nothing_is_skipped_of_other_kinds_of_images(generator):
    canvas = stained_glass(generator)
    assert find_tissue(slide_of(canvas)) is not None
    assert find_tissue(slide_of(canvas[..., 0])) is None  # one channel
    assert find_tissue(slide_of(canvas[..., :2])) is None
    assert find_tissue(slide_of(canvas.astype(np.uint16))) is None  # 12 of 65,535 would be nothing
    assert find_tissue(slide_of(canvas[:1500, :1500])) is None  # a field of view
    assert find_tissue(slide_of(glass(generator))) is None  # nothing that stands out
    assert find_tissue(slide_of(np.full((SIDE, SIDE, 3), 255, np.uint8))) is None


def test_a_black_border_does_not_hide_pale_tissue(generator):
    """Otsu's threshold lies between the border and everything else; pale tissue differs from glass all the same."""
    canvas = glass(generator)
    canvas[:, 1500:] = 0
    canvas[900:1000, 500:600] = (240, 222, 232)
    found = find_tissue(slide_of(canvas))
    assert found.is_in(Region(top=900, left=500, bottom=1000, right=600))
    assert not found.is_in(Region(top=0, left=0, bottom=700, right=1300))


@pytest.mark.parametrize(
    ("absorbing", "tint", "threshold"),
    [
        ({10: 90, 30: 1, 100: 10}, 2, 22),  # Otsu's is 30; 12 grey levels beyond glass are visible
        ({10: 90, 15: 1, 100: 10}, 2, 15),  # Otsu's
        ({10: 90, 43: 10}, 2, 10),
        ({10: 90, 40: 10}, 2, None),  # too faint to be sure
        ({70: 90, 200: 10}, 2, None),  # too dark for glass
        ({10: 90, 100: 10}, 30, None),  # too colourful
        ({10: 10, 100: 90}, 2, None),  # mostly something else
        ({10: 100}, 2, None),
    ],
)
def test_the_threshold_by_hand(absorbing, tint, threshold):
    counts = np.zeros(256, dtype=np.int64)
    counts[list(absorbing)] = list(absorbing.values())
    assert glass_threshold(counts, np.full(256, float(tint))) == threshold


@pytest.mark.parametrize("band_px", [1, 2**17])
def test_tissue_does_not_depend_on_the_bands(band_px, generator, monkeypatch):
    canvas = glass(generator)[:, :2000]
    canvas = np.concatenate([canvas, canvas[:77]])
    canvas[500:1200, 300:1500] = generator.integers(0, 255, (700, 1200, 3))
    whole = find_tissue(slide_of(canvas))
    monkeypatch.setattr(tissue, "_BAND_PX", band_px)
    np.testing.assert_array_equal(find_tissue(slide_of(canvas)).cells, whole.cells)


def test_cells_of_large_slides_are_larger(generator, monkeypatch):
    canvas = stained_glass(generator)
    monkeypatch.setattr(tissue, "_MOST_CELLS", 100)
    found = find_tissue(slide_of(canvas))
    assert found.cells.size <= 100
    assert found.is_in(Region(top=500, left=300, bottom=501, right=301))


@given(
    cells=arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    cell_px=st.tuples(st.floats(8, 40), st.floats(8, 40)),
    tile_px=st.sampled_from([16, 48, 160]),
)
def test_tiles_and_glass_partition_the_grid_and_glass_has_no_tissue(cells, cell_px, tile_px):
    shape = tuple(max(1, int(count * side)) for count, side in zip(cells.shape, cell_px, strict=True))
    grid = Grid.plan(shape, geometry=Geometry(stride_px=16, context_px=0), tile_px=tile_px, mirror_px=0)
    plan = plan_of(grid, tissue=runs_with_tissue(Tissue(stained=cells, cells=cells, cell_px=cell_px), grid))
    plan = SlidePlan.from_dict(plan.to_dict())
    held, skipped = ([tile.write for tile in part] for part in (plan.tiles(), plan.glass()))
    assert sorted([*held, *skipped], key=lambda region: (region.top, region.left)) == [
        tile.write for tile in grid.tiles()
    ]
    rows, columns = (
        np.minimum((np.arange(n) / side).astype(int), count - 1)
        for n, side, count in zip(shape, cell_px, cells.shape, strict=True)
    )
    pixels = cells[rows][:, columns]
    for region in skipped:
        assert not pixels[region.slices].any()


def test_a_plan_without_tissue_map_has_all_tiles():
    grid = Grid.plan((100, 90), geometry=Geometry(stride_px=16, context_px=0), tile_px=32, mirror_px=0)
    plan = plan_of(grid)
    assert list(plan.tiles()) == list(grid.tiles())
    assert list(plan.glass()) == []


@pytest.mark.parametrize("factor", [1, 2])
def test_any_bands_and_threads_find_the_same_bits(generator, monkeypatch, factor):
    slide = slide_of(shrunk(stained_glass(generator), factor)[:, :1000])
    found = []
    for threads, band_px in ((1, 2**24), (1, 2**16), (2, 2**16), (4, 2**17)):
        monkeypatch.setattr(tissue, "_BAND_PX", band_px)
        with dask.config.set(num_workers=threads):
            darkest, cell_px, counts, tint = tissue._survey(slide)
        found.append((darkest.tobytes(), cell_px, counts.tobytes(), tint.tobytes()))
    assert len(set(found)) == 1
