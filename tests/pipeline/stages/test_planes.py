"""``image.z: each``, ``t: each``: a plane of a stack has exactly the results that it has as a slide of its own."""

import contextlib
import copy
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

from pipeline.base import paths
from pipeline.base.files import read_json, write_json
from pipeline.prediction import results
from pipeline.slides.intensity import NORMALIZATION
from tests.support.detection import planted_discs, sees_discs
from tests.support.jobs import Jobs
from tests.support.networks import CARD, write_network

T, Z, SHAPE = 2, 3, (90, 110)
PLACES = list(product(range(T), range(Z)))
EACH = {"z": "each", "t": "each"}
MEASURED = {
    "groups": ["neighbours", "shape", "intensity"],
    "compartments": {"cell": {"nucleus": "object", "expand_um": 2}},
}
NO_CRF = {"instances": "components", "min_object_px": 6, "max_hole_px": 9}
# Counts, which are sums over planes, among the metrics
SUMMED = ("pixels", "objects_truth", "objects_predicted", "objects_matched_50", "objects_merged", "objects_split")


def stack_of(generator):
    """A stack of objects in noise, of another brightness in each plane: (T, Z, rows, columns) uint8."""
    fields = generator.standard_normal((T, Z, *SHAPE))
    smooth = ndimage.gaussian_filter(fields, (0, 0, 4, 4)) > 0.03
    bright = np.linspace(40, 200, T * Z).reshape(T, Z, 1, 1)
    return (smooth * bright + generator.integers(0, 50, fields.shape)).astype(np.uint8)


def write_ome(path, pixels, axes):
    size = {f"PhysicalSize{axis}": length for axis, length in zip("YX", (0.5, 0.5), strict=True)}
    size |= {f"PhysicalSize{axis}Unit": "µm" for axis in "YX"}
    if "Z" in axes:
        size |= {"PhysicalSizeZ": 1500, "PhysicalSizeZUnit": "nm"}
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": axes} | size, photometric="minisblack")


def segment(weights, slides, *, stages=("tile", "predict", "stitch", "objects"), **settings):
    """Run stages on slides (path by sample, or path and reference) in the current folder."""
    jobs = Jobs(weights, threads=1, measurements=MEASURED, **settings)
    for sample, files in slides.items():
        jobs.put(sample, *files)
    entries = jobs.run(*stages)
    assert [sample for sample, entry in entries.items() if entry.is_done] == sorted(slides), entries
    return jobs


class Both:
    """A stack and its planes as slides, both segmented under the same settings, with references."""

    def __init__(self, folder, *, stages=("tile", "predict", "stitch", "objects", "evaluate"), **settings):
        generator = np.random.default_rng(0)
        self.folder = folder
        weights = write_network(folder / "network", width=6, depth=1)
        pixels = stack_of(generator)
        truth = (pixels > 60).astype(np.uint8)
        for name, axes, whole in (("slide", "TZYX", pixels), ("reference", "TZYX", truth)):
            write_ome(folder / f"{name}.ome.tif", whole, axes)
            for t, z in PLACES:
                write_ome(folder / f"{name}_{t}{z}.ome.tif", whole[t, z], axes[2:])
        usual = {"tiling": {"tile_px": 48}, "training": {"kind": "classes"}}
        self.planes = {f"{t}{z}": self.files(f"_{t}{z}") for t, z in PLACES}
        for part, slides, image in (("stack", {"stack": self.files("")}, EACH), ("single", self.planes, {})):
            (folder / part).mkdir()
            with contextlib.chdir(folder / part):
                jobs = segment(weights, slides, stages=stages, image=image, **usual | settings)
            setattr(self, part, jobs)

    def files(self, name):
        return [self.folder / f"{kind}{name}.ome.tif" for kind in ("slide", "reference")]

    def of_stack(self, pattern):
        return self.folder / "stack" / self.stack.path(pattern, "stack")

    def of_planes(self, pattern):
        return [self.folder / "single" / self.single.path(pattern, sample) for sample in self.planes]

    def masks(self, series):
        """Image of the stack, (planes, rows, columns), and those of the planes."""
        stack = tifffile.imread(self.of_stack(paths.MASK), series=series)
        assert stack.shape == (T, Z, *SHAPE)
        planes = [tifffile.imread(path, series=series) for path in self.of_planes(paths.MASK)]
        return stack.reshape(T * Z, *SHAPE), planes


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return Both(tmp_path_factory.mktemp("planes"), masks=NO_CRF, prediction={"probabilities": True})


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    """With what needs probabilities and the image: a random field and a watershed."""
    masks = {"instances": "watershed", "crf": {"radius_px": 3, "iterations": 2}}
    return Both(tmp_path_factory.mktemp("refined"), stages=("tile", "predict", "stitch"), masks=masks)


@pytest.mark.parametrize("how", ["both", "refined"])
def test_the_mask_of_a_plane_is_that_of_the_plane_as_a_slide(how, request):
    made = request.getfixturevalue(how)
    stack, planes = made.masks(0)
    np.testing.assert_array_equal(stack, planes)
    assert 0.02 < stack.mean() < 0.98
    ids, own = made.masks(1)
    firsts = np.cumsum([0, *(plane.max() for plane in own)])
    assert len(firsts) == T * Z + 1 and firsts[-1] > T * Z
    for plane, single, first in zip(ids, own, firsts[:-1], strict=True):
        np.testing.assert_array_equal(plane, np.where(single > 0, single + first, 0))


def test_the_mask_is_one_ome_tiff_with_axes_sizes_and_pixel_size(both):
    with tifffile.TiffFile(both.of_stack(paths.MASK)) as tiff:
        assert tiff.is_ome
        assert [series.axes for series in tiff.series] == ["TZYX", "TZYX"]
        for series in tiff.series:
            assert len(series.levels) > 1
            whole = series.asarray()
            np.testing.assert_array_equal(series.levels[1].asarray(), whole[..., ::2, ::2])
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"][0]["Pixels"]
    sizes = {f"Size{axis}": length for axis, length in zip("TZYX", (T, Z, *SHAPE), strict=True)}
    assert {name: pixels[name] for name in sizes} == sizes
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"], pixels["PhysicalSizeXUnit"]) == (0.5, 0.5, "µm")
    assert (pixels["PhysicalSizeZ"], pixels["PhysicalSizeZUnit"]) == (1.5, "µm")


@pytest.mark.parametrize("pattern", [paths.OBJECTS, paths.REGIONS])
def test_tables_are_those_of_the_planes_below_each_other(both, pattern):
    tables = []
    for path, (t, z) in zip(both.of_planes(pattern), PLACES, strict=True):
        tables.append(pd.read_csv(path).assign(z=z, t=t))
    expected = pd.concat(tables, ignore_index=True)
    if "id" in expected:
        expected["id"] = np.arange(1, len(expected) + 1)
    found = pd.read_csv(both.of_stack(pattern))
    assert set(found.columns[:3]) >= {"z", "t"}
    pd.testing.assert_frame_equal(found, expected[found.columns])


def test_outlines_are_on_their_planes(both):
    features = json.loads(both.of_stack(paths.ANNOTATIONS).read_text(encoding="utf-8"))["features"]
    table = pd.read_csv(both.of_stack(paths.OBJECTS)).set_index("id")
    assert len({feature["id"] for feature in features}) == len(features) == len(table)
    for feature in features:
        row = table.loc[int(feature["properties"]["name"])]
        assert feature["geometry"]["plane"] == {"c": -1, "z": row["z"], "t": row["t"]}
        assert feature["properties"]["measurements"]["Area px"] == row["area_px"]
    outlines = [
        feature["geometry"]["coordinates"]
        for path in both.of_planes(paths.ANNOTATIONS)
        for feature in json.loads(path.read_text(encoding="utf-8"))["features"]
    ]
    assert [feature["geometry"]["coordinates"] for feature in features] == outlines


def test_metrics_are_pooled_over_the_planes(both):
    found = both.stack.entries  # read below, in its folder
    with contextlib.chdir(both.folder / "stack"):
        pooled = found("evaluate")["stack"].found["metrics"]
    with contextlib.chdir(both.folder / "single"):
        singles = [entry.found["metrics"] for entry in both.single.entries("evaluate").values()]
    assert len(singles) == T * Z
    summed = [*SUMMED, *(name for name in pooled if name.startswith(("pixels_", "objects_matched")))]
    for name in summed:
        assert pooled[name] == sum(single[name] for single in singles), name
    overlap, missed, extra = (
        sum(single[f"pixels_{true}_as_{label}"] for single in singles)
        for true, label in (("object", "object"), ("object", "background"), ("background", "object"))
    )
    assert pooled["dice_object"] == pytest.approx(2 * overlap / (2 * overlap + missed + extra))
    mask, truth = (
        tifffile.imread(path, series=0).reshape(-1, *SHAPE)
        for path in (both.of_stack(paths.MASK), both.folder / "reference.ome.tif")
    )
    towards = [distances_in_um(*pair) for pair in zip(truth, mask, strict=True)]
    back = [distances_in_um(*pair) for pair in zip(mask, truth, strict=True)]
    percentiles = [np.percentile(np.concatenate(some), 95) for some in (towards, back)]
    assert pooled["hausdorff95_object"] == pytest.approx(max(percentiles))
    assert pooled["surface_distance_object"] == pytest.approx(np.concatenate([*towards, *back]).mean())
    assert pooled["average_precision_object"] is not None


def distances_in_um(here, there):
    """Of each boundary pixel of class 1 to the boundary of the other image, by distance transform."""
    edges = [labels.astype(bool) & ~ndimage.binary_erosion(labels == 1) for labels in (here, there)]
    return 0.5 * ndimage.distance_transform_edt(~edges[1])[edges[0]]


def test_what_was_measured_is_of_all_planes(both):
    with contextlib.chdir(both.folder / "stack"):
        stack = {stage: both.stack.entries(stage)["stack"].found for stage in ("tile", "predict", "objects")}
    with contextlib.chdir(both.folder / "single"):
        single = {stage: [one.found for one in both.single.entries(stage).values()] for stage in stack}
    assert stack["tile"]["pixels"] == sum(one["pixels"] for one in single["tile"]) == T * Z * SHAPE[0] * SHAPE[1]
    assert stack["tile"]["appearance"] == single["tile"][T * Z // 2]["appearance"]
    assert stack["predict"]["pixels"] == sum(one["pixels"] for one in single["predict"])
    assert stack["predict"]["uncertain"] == pytest.approx(np.mean([one["uncertain"] for one in single["predict"]]))
    assert stack["objects"]["objects"] == sum(one["objects"] for one in single["objects"])
    assert stack["objects"]["class_pixels"] == np.sum([one["class_pixels"] for one in single["objects"]], 0).tolist()
    assert stack["objects"]["picture_plane"] == {"t": 1, "z": 0}


def imagej_composite(path, pixels):
    """(Z, C, rows, columns) uint16, as Fiji saves it."""
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "ZCYX", "mode": "composite"}, resolution=(2, 2))


def test_an_imagej_composite_is_segmented_plane_by_plane(in_folder, generator):
    """With a channel chosen, and one axis that is each."""
    weights = write_network(in_folder / "network", width=6, depth=1)
    pixels = np.stack([stack_of(generator)[0]] * 2, axis=1).astype(np.uint16)
    pixels[:, 0] = 0
    imagej_composite(in_folder / "stack.tif", pixels)
    for z, plane in enumerate(pixels):
        tifffile.imwrite(in_folder / f"{z}.tif", plane[1])
    jobs = segment(weights, {"stack": [Path("stack.tif")]}, image={"z": "each", "channels": [1]})
    with tifffile.TiffFile(jobs.mask("stack")) as tiff:
        assert [(series.axes, series.shape) for series in tiff.series] == [("ZYX", (Z, *SHAPE))] * 2
        stack = tiff.asarray()
    singles = segment(weights, {str(z): [Path(f"{z}.tif")] for z in range(Z)})
    np.testing.assert_array_equal(stack, [tifffile.imread(singles.mask(str(z)), series=0) for z in range(Z)])


def test_a_slide_of_one_plane_is_a_stack_of_one(in_folder, generator):
    weights = write_network(in_folder / "network", width=6, depth=1)
    tifffile.imwrite("a.tif", stack_of(generator)[0, 0])
    plain = segment(weights, {"a": [Path("a.tif")]})
    expected = [tifffile.imread(plain.mask("a"), series=series) for series in (0, 1)]
    table = pd.read_csv(plain.path(paths.OBJECTS, "a"))
    each = segment(weights, {"a": [Path("a.tif")]}, image={"z": "each"})
    for series, image in enumerate(expected):
        np.testing.assert_array_equal(tifffile.imread(each.mask("a"), series=series), image)
    found = pd.read_csv(each.path(paths.OBJECTS, "a"))
    assert (found.pop("z") == 0).all()
    pd.testing.assert_frame_equal(found, table)
    assert not each.path(paths.PREDICTION, "a").exists()  # another setting left it


def test_an_interrupted_prediction_goes_on_with_the_planes_that_are_left(in_folder, generator):
    weights = write_network(in_folder / "network", width=6, depth=1)
    write_ome(in_folder / "a.ome.tif", stack_of(generator), "TZYX")
    slides = {"a": [Path("a.ome.tif")]}
    whole = segment(weights, slides, stages=("tile", "predict"), image=EACH)
    planes = sorted(whole.path(paths.PLANES, "a").glob("*.zarr.zip"))
    assert [path.name for path in planes] == [f"t{t}_z{z}.zarr.zip" for t, z in PLACES]
    (entry,) = whole.entries("predict").values()
    expected = {path: path.read_bytes() for path in planes}
    whole.forget("predict")

    completed = []

    class PulledPlug(BaseException):
        """Not an error of a slide."""

    def complete(result):
        if len(completed) == 2:
            raise PulledPlug
        completed.append(result.target.sample)
        original(result)

    original = results.SlideResult.complete
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results.SlideResult, "complete", complete)
        with pytest.raises(PulledPlug):
            whole.run("predict")
    kept = {path: path.stat().st_mtime_ns for path in planes if path.exists()}
    assert 1 <= len(kept) <= 2
    whole.run("predict")
    (again,) = whole.entries("predict").values()
    assert {name: again.found[name] for name in ("pixels", "uncertain")} == {
        name: entry.found[name] for name in ("pixels", "uncertain")
    }
    assert sum(path.stat().st_mtime_ns == time for path, time in kept.items()) >= len(kept) - 1
    assert expected.keys() == set(whole.path(paths.PLANES, "a").glob("*.zarr.zip"))


def test_another_choice_of_planes_is_made_again(in_folder, generator):
    weights = write_network(in_folder / "network", width=6, depth=1)
    write_ome(in_folder / "a.ome.tif", stack_of(generator), "TZYX")
    jobs = segment(weights, {"a": [Path("a.ome.tif")]}, image=EACH)
    jobs.configure(image={"z": 1, "t": "each"}, measurements=MEASURED)
    jobs.run("tile", "predict", "stitch", "objects")
    with tifffile.TiffFile(jobs.mask("a")) as tiff:
        assert [series.axes for series in tiff.series] == ["TYX", "TYX"]
    assert [path.name for path in sorted(jobs.path(paths.PLANES, "a").glob("*.zip"))] == ["t0.zarr.zip", "t1.zarr.zip"]
    assert set(pd.read_csv(jobs.path(paths.OBJECTS, "a"))["t"]) == {0, 1}
    feature = json.loads(jobs.path(paths.ANNOTATIONS, "a").read_text())["features"][-1]
    assert feature["geometry"]["plane"] == {"c": -1, "z": 1, "t": 1}


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((T, Z - 1), "TZYX", "its length along axis Z is 2, that of the mask of its slide 3 (image.z)"),
        ((T + 1, Z), "TZYX", "its length along axis T is 3, that of the mask of its slide 2 (image.t)"),
        ((), "YX", "its length along axis T is 1, that of the mask of its slide 2 (image.t)"),
    ],
)
def test_a_reference_of_other_planes_is_refused_in_one_line(both, tmp_path, shape, axes, message):
    reference = tmp_path / "other.ome.tif"
    write_ome(reference, np.ones((*shape, *SHAPE), np.uint8), axes)
    with contextlib.chdir(both.folder / "stack"):
        known = both.stack.entries("evaluate")["stack"]
        both.stack.put("stack", both.files("")[0], reference)
        failure = both.stack.run("evaluate")["stack"].failure
        both.stack.put("stack", *both.files(""))
        assert both.stack.run("evaluate")["stack"].found == known.found
    assert failure.message.startswith(f"{reference}: {message}; save the labels of all planes")
    assert "\n" not in failure.message


def test_regions_are_those_of_each_plane(in_folder, generator):
    """One that was drawn on z = 1 holds nothing of the other planes; one without a plane is on all of them."""
    weights = write_network(in_folder / "network", width=6, depth=1)
    write_ome(in_folder / "a.ome.tif", stack_of(generator)[0], "ZYX")
    square = [[[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]]]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": square} | plane,
            "properties": {"name": name},
        }
        for name, plane in (("here", {"plane": {"c": -1, "z": 1, "t": 0}}), ("all", {}))
    ]
    for name, some in (("one", features[:1]), ("two", features)):
        Path(f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": some}))
    for name, expected in (("one", {(1, "here")}), ("two", {(0, "all"), (1, "all"), (2, "all"), (1, "here")})):
        jobs = Jobs(weights, threads=1, image={"z": "each"})
        jobs.put("a", Path("a.ome.tif"), regions=f"{name}.geojson")
        jobs.run("tile", "predict", "stitch", "objects")
        table = pd.read_csv(jobs.path(paths.REGIONS, "a"))
        assert set(zip(table["z"], table["region"], strict=True)) == expected
        assert (table["region_area_px"] == 1600).all()
        objects = pd.read_csv(jobs.path(paths.OBJECTS, "a"), keep_default_na=False)
        assert set(objects.loc[objects["z"] == 0, "regions"]) <= {"", "all"}


def test_plans_of_planes_choose_single_planes(both):
    plans = read_json(both.of_stack(paths.PLAN))["planes"]
    assert [plan["plane"] for plan in plans] == [{"t": t, "z": z} for t, z in PLACES]
    assert [(plan["view"]["t"], plan["view"]["z"]) for plan in plans] == PLACES
    singles = [read_json(path) for path in both.of_planes(paths.PLAN)]
    assert [plan["statistics"] for plan in plans] == [plan["statistics"] for plan in singles]


def test_detected_objects_and_their_scores_are_those_of_each_plane(in_folder, monkeypatch):
    network = sees_discs()
    card = replace(CARD, architecture="mask_rcnn", geometry=network.geometry, normalization=NORMALIZATION)
    write_json(Path("network/model.json"), card.to_dict())
    Path("network/model.safetensors").write_bytes(b"not read")
    monkeypatch.setattr("pipeline.stages.predict.load_network", lambda *_, **__: (copy.deepcopy(network), card))
    pixels = np.stack([planted_discs(3, 4, seed=seed) > 0 for seed in range(3)]).astype(np.uint8)
    pixels[1, :40] = 0  # fewer objects
    write_ome(in_folder / "a.ome.tif", pixels, "ZYX")
    for z, plane in enumerate(pixels):
        write_ome(in_folder / f"{z}.ome.tif", plane, "YX")
    how = {"tiling": {"tile_px": 48}, "masks": {"instances": "auto"}}
    stack = segment(Path("network/model.safetensors"), {"a": [Path("a.ome.tif")]}, image={"z": "each"}, **how)
    table, ids = pd.read_csv(stack.path(paths.OBJECTS, "a")), tifffile.imread(stack.mask("a"), series=1)
    slides = {str(z): [Path(f"{z}.ome.tif")] for z in range(3)}
    singles = segment(Path("network/model.safetensors"), slides, **how)
    tables = [pd.read_csv(singles.path(paths.OBJECTS, sample)) for sample in slides]
    assert min(map(len, tables)) > 0 and table["id"].tolist() == list(range(1, sum(map(len, tables)) + 1))
    assert table["score"].tolist() == pd.concat(tables)["score"].tolist()
    for plane, sample in zip(ids, slides, strict=True):
        single = tifffile.imread(singles.mask(sample), series=1)
        np.testing.assert_array_equal(plane > 0, single > 0)
        assert len(np.unique(plane)) == len(np.unique(single))
