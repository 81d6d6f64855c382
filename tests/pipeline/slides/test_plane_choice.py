"""A view shows the channels, plane, series and pixel size that the settings choose, or says which there are."""

import re

import numpy as np
import pytest
import tifffile

from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.planes import Plane
from pipeline.slides.slide import on_grid_of, open_plane, open_slide, planes_of

AXES = "TCZYX"
SHAPE = (2, 3, 4, 24, 36)


@pytest.fixture
def stack(tmp_path, generator):
    """Two series: a stack of named channels, and a single plane."""
    pixels = generator.integers(0, 255, SHAPE).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "x.ome.tif") as file:
        named = {"axes": AXES, "Name": "nuclei", "Channel": {"Name": ["DAPI", "GFP", "GFP"]}}
        file.write(pixels, metadata=named | {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, photometric="minisblack")
        file.write(pixels[0, 0, 0, :8, :9], metadata={"axes": "YX", "Name": "overview"})
    return tmp_path / "x.ome.tif", pixels


def read(path, **view):
    with open_slide(path, memory_mb=100, view=ImageConfig(**view)) as slide:
        return slide.read_all()


@pytest.mark.parametrize("channels", [[0], [2, 0], [1, 1]])
@pytest.mark.parametrize("t", [0, 1])
@pytest.mark.parametrize("z", [0, 3, "max"])
def test_the_chosen_planes_are_read(stack, channels, t, z):
    path, pixels = stack
    planes = pixels[t][channels]
    np.testing.assert_array_equal(
        read(path, channels=channels, t=t, z=z), planes.max(axis=1) if z == "max" else planes[:, z]
    )


def test_names_choose_channels_and_series(stack):
    path, pixels = stack
    np.testing.assert_array_equal(read(path, channels=["DAPI"], series="nuclei", t=0, z=0)[0], pixels[0, 0, 0])
    np.testing.assert_array_equal(read(path, series="overview")[0], pixels[0, 0, 0, :8, :9])
    with open_slide(path, memory_mb=100, view=ImageConfig(channels=[2, "DAPI"], t=0, z=0)) as slide:
        assert slide.channel_names == ("GFP", "DAPI")


def test_the_first_of_several_images_is_read_with_a_warning_unless_it_is_chosen(stack):
    path, pixels = stack
    warned = {}
    for series in (None, 0, "nuclei"):
        with open_slide(path, memory_mb=100, view=ImageConfig(t=0, z=0, series=series)) as slide:
            np.testing.assert_array_equal(slide.read_all()[0], pixels[0, 0, 0])
            warned[series] = slide.inspect()
    assert warned[0] == warned["nuclei"] == ()
    assert warned[None] == (
        "the first (nuclei) of its 2 images is read, the others are not; image.series chooses another",
    )


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"t": 0}, "4 planes along axis Z; choose with image.z (0 to 3, max or each)"),
        ({"z": "max"}, "2 planes along axis T; choose with image.t (0 to 1, or each)"),
        ({"z": 4, "t": 0}, "no plane 4 along axis Z, the file has 4"),
        (
            {"z": "each", "t": 0},
            "4 planes along axis Z, and a single one is read here; image.z: each is for",
        ),
        (
            {"z": 0, "t": "each"},
            "2 planes along axis T, and a single one is read here; image.t: each is for",
        ),
        ({"z": 0, "t": 2}, "no plane 2 along axis T, the file has 2"),
        ({"z": 0, "t": 0, "channels": [3]}, "no channel 3 (image.channels, counted from 0), the file has 3"),
        (
            {"z": 0, "t": 0, "channels": ["RFP"]},
            "channel 'RFP' (image.channels) is in the file 0 times; its names: 'DAPI', 'GFP', 'GFP'",
        ),
        ({"z": 0, "t": 0, "channels": ["GFP"]}, "channel 'GFP' (image.channels) is in the file 2 times"),
        ({"series": "scan"}, "its names: 'nuclei', 'overview'"),
        ({"series": 2}, "no series 2 (image.series, counted from 0), the file has 2"),
        ({"z": 0, "t": 0, "level": 1}, "no level 1 (image.level, counted from 0), the file has 1"),
        (
            {"series": "overview", "pixel_size_um": 1.0},
            "no pixel size in the file, and image.pixel_size_um asks for 1.0",
        ),
    ],
)
def test_a_choice_that_the_file_lacks_gives_one_line(stack, view, message):
    with pytest.raises(SlideError, match=re.escape(message)):
        read(stack[0], **view)


@pytest.fixture
def pyramid(tmp_path, generator):
    """Levels of 0.5, 1 and 2 µm."""
    finest = generator.integers(0, 60_000, (96, 128)).astype(np.uint16)
    levels = [finest, finest[::2, ::2], finest[::4, ::4]]
    with tifffile.TiffWriter(tmp_path / "x.ome.tif") as file:
        file.write(
            finest, subifds=2, tile=(16, 16), metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        )
        for level in levels[1:]:
            file.write(level, subfiletype=1, tile=(16, 16))
    return tmp_path / "x.ome.tif", levels


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_chosen_level_is_the_finest_of_the_slide(pyramid, number):
    path, levels = pyramid
    with open_slide(path, memory_mb=100, view=ImageConfig(level=number)) as slide:
        assert len(slide.levels) == 3 - number
        np.testing.assert_array_equal(slide.read_all()[0], levels[number])
        assert slide.pixel_size_um == (0.5 * 2**number, 0.5 * 2**number)
        assert (slide.file_shape, slide.step) == ((96, 128), (2**number, 2**number))


@pytest.mark.parametrize(
    ("target_um", "shape", "from_level", "coarser"),
    [
        (0.25, (192, 256), 0, 3),
        (0.5, (96, 128), 0, 2),
        (0.75, (64, 85), 0, 2),
        (1.0, (48, 64), 1, 1),
        (3.0, (16, 21), 2, 0),
    ],
)
def test_a_pixel_size_is_read_from_the_nearest_finer_level(pyramid, target_um, shape, from_level, coarser):
    path, levels = pyramid
    with open_slide(path, memory_mb=100, view=ImageConfig(pixel_size_um=target_um)) as slide:
        assert slide.shape == shape
        assert slide.pixel_size_um == (target_um, target_um)
        assert len(slide.levels) == 1 + coarser
        assert slide.step == pytest.approx((target_um / 0.5,) * 2)
        found = slide.read_all()[0]
        np.testing.assert_array_equal(slide.read(slice(3, 11), slice(5, 20))[0], found[3:11, 5:20])
    if target_um in (0.5, 1.0):
        np.testing.assert_array_equal(found, levels[from_level])
    if target_um == 3.0:  # no multiple of 2 µm: the mean over 1.5 x 1.5 pixels
        block = levels[2][:2, :2].astype(float)
        expected = (block[0, 0] + 0.5 * block[0, 1] + 0.5 * block[1, 0] + 0.25 * block[1, 1]) / 2.25
        assert found[0, 0] == round(expected)


def test_a_missing_pixel_size_comes_from_the_fallback(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.arange(64, dtype=np.float32).reshape(8, 8))
    view = ImageConfig(pixel_size_um=1.0, fallback_pixel_size_um=0.5)
    with open_slide(tmp_path / "x.tif", memory_mb=100, view=view) as slide:
        assert (slide.shape, slide.pixel_size_um) == ((4, 4), (1.0, 1.0))
        assert slide.read_all()[0, 0].tolist() == [4.5, 6.5, 8.5, 10.5]
    with open_slide(tmp_path / "x.tif", memory_mb=100, view=ImageConfig(fallback_pixel_size_um=0.5)) as slide:
        assert (slide.shape, slide.pixel_size_um) == ((8, 8), (0.5, 0.5))


def test_what_the_user_states_wins_over_the_file(pyramid):
    """With a line that says so, unless both agree."""
    path, _ = pyramid
    for view, size, warnings in [
        ({"fallback_pixel_size_um": 2.0}, 0.5, ()),
        ({"stated_pixel_size_um": 0.5}, 0.5, ()),
        (
            {"stated_pixel_size_um": 2.0},
            2.0,
            ("pixel size 2 \u00b5m, as stated by you, instead of 0.5 \u00b5m, as in the file",),
        ),
    ]:
        with open_slide(path, memory_mb=100, view=ImageConfig(**view)) as slide:
            assert (slide.pixel_size_um, slide.inspect()) == ((size, size), warnings)
    with open_slide(path, memory_mb=100, view=ImageConfig(stated_pixel_size_um=2.0, level=1)) as slide:
        assert slide.pixel_size_um == (4.0, 4.0)
    with open_slide(path, memory_mb=100, view=ImageConfig(stated_pixel_size_um=2.0, pixel_size_um=4.0)) as slide:
        assert (slide.shape, slide.file_level) == ((48, 64), 1)


@pytest.mark.parametrize(
    ("target_um", "message"),
    [
        (
            1e-7,
            "image.pixel_size_um of 1e-07 \u00b5m would enlarge its pixels of 0.5 \u00b5m 5e+06 times, the limit is 8",
        ),
        (0.06, "would enlarge its pixels of 0.5 \u00b5m 8.333 times, the limit is 8"),
        (1e6, "would shrink its (96, 128) pixels of 2 \u00b5m to less than one"),
    ],
)
def test_an_absurd_pixel_size_is_refused_before_a_pixel_is_read(pyramid, target_um, message):
    with (
        pytest.raises(SlideError, match=re.escape(message)),
        open_slide(pyramid[0], memory_mb=100, view=ImageConfig(pixel_size_um=target_um)),
    ):
        pass


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
def test_bare_pages_are_planes_or_channels_as_the_settings_say(tmp_path, generator, options):
    pixels = generator.integers(0, 255, (3, 24, 36)).astype(np.uint8)
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as file:
        for page in pixels:
            file.write(page, metadata=None, contiguous=False, photometric="minisblack", **options)
    for view in ({}, {"channels": [1]}):
        with pytest.raises(SlideError, match=re.escape("if its pages are channels, set image.pages: channels")):
            read(path, **view)
    np.testing.assert_array_equal(read(path, z=2)[0], pixels[2])
    np.testing.assert_array_equal(read(path, pages="channels", channels=[2, 0]), pixels[[2, 0]])
    with open_slide(path, memory_mb=100, view=ImageConfig(pages="channels", channels=[2, 0])) as slide:
        assert slide.inspect() == ()


@pytest.mark.parametrize("view", [{"pixel_size_um": 1.7}, {"pixel_size_um": 0.2}, {"level": 2}])
def test_labels_are_picked_at_the_pixel_centres_of_the_view(pyramid, tmp_path, view):
    """Labels of the shape of the file, or of the view; any other is refused."""
    labels = np.arange(96 * 128, dtype=np.int32).reshape(96, 128)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    with open_slide(pyramid[0], memory_mb=100, view=ImageConfig(**view)) as slide:
        with open_plane(tmp_path / "labels.tif", memory_mb=100, like=slide) as picked:
            found = picked.read_all()[0]
        assert found.shape == slide.shape
        rows, columns = ((np.arange(n) + 0.5) * step for n, step in zip(slide.shape, slide.step, strict=True))
        expected = labels[np.ix_(np.minimum(rows.astype(int), 95), np.minimum(columns.astype(int), 127))]
        np.testing.assert_array_equal(found, expected)
        tifffile.imwrite(tmp_path / "found.tif", found)
        with open_plane(tmp_path / "found.tif", memory_mb=100, like=slide) as same:
            np.testing.assert_array_equal(same.read_all()[0], found)
        tifffile.imwrite(tmp_path / "other.tif", labels[:, :127])
        with (
            open_slide(tmp_path / "other.tif", memory_mb=100) as other,
            pytest.raises(SlideError, match=r"labels of \(96, 127\) px .*or of \(96, 128\) px, as its file"),
        ):
            on_grid_of(slide, other)


@pytest.mark.parametrize(
    ("view", "places"),
    [
        ({"z": 1, "t": 0}, [{}]),
        ({"z": "each", "t": 1}, [{"z": z} for z in range(4)]),
        ({"z": "max", "t": "each"}, [{"t": 0}, {"t": 1}]),
        ({"z": "each", "t": "each"}, [{"t": t, "z": z} for t in range(2) for z in range(4)]),
    ],
)
def test_each_plane_is_read_by_its_number(stack, view, places):
    path, pixels = stack
    planes = planes_of(path, ImageConfig(**view), memory_mb=100)
    assert [plane.place for plane in planes] == places
    for plane in planes:
        t, z = (plane.place.get(axis, view[axis]) for axis in "tz")
        with open_slide(path, memory_mb=100, view=plane.view) as slide:
            expected = pixels[t, 0].max(axis=0) if z == "max" else pixels[t, 0, z]
            np.testing.assert_array_equal(slide.read_all()[0], expected)
        assert plane.in_file == ({"z": 0 if z == "max" else z, "t": t} if plane.place else {})


@pytest.mark.parametrize("metadata", [None, {}])
@pytest.mark.parametrize("axis", ["z", "t"])
def test_pages_of_a_label_image_are_the_planes_of_its_slide(tmp_path, axis, metadata):
    """A TIFF that does not say what its pages are."""
    labels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    tifffile.imwrite(tmp_path / "labels.tif", labels, metadata=metadata, photometric="minisblack")
    for number in range(3):
        plane = Plane(view=ImageConfig(), place={axis: number}, counts={axis: 3})
        with open_plane(tmp_path / "labels.tif", memory_mb=100, plane=plane) as opened:
            np.testing.assert_array_equal(opened.read_all()[0], labels[number])
