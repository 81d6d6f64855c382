"""Prediction in regions only: what is computed has the labels of the whole slide, the rest is background for sure."""

import numpy as np
import pytest
import tifffile
from shapely.geometry import Point, box

from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import segment_slides
from pipeline.prediction.results import Target
from pipeline.prediction.store import open_prediction
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import TileConfig
from pipeline.slides.regions import Regions
from pipeline.slides.slide import open_slide
from pipeline.tiling.plan_slide import plan_open_slide
from tests.support.networks import write_network
from tests.support.outlines import centres_in

SHAPE = (430, 350)
AREAS = [Point(90, 120).buffer(31.3), box(300, 400, 350, 430)]


def predict(folder, weights, plan, name):
    network, card = load_network(weights)
    target = Target(sample=name, plan=plan, path=folder / f"{name}.zarr.zip", identity=name)
    (finished,) = segment_slides([network], card, [target], probabilities=True, memory_mb=1000, threads=1)
    with open_prediction(target.path) as group:
        return group["labels"][:], group["probabilities"][:], finished.outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    weights = write_network(folder, width=4, depth=2)
    generator = np.random.default_rng(0)
    tifffile.imwrite(folder / "a.tif", generator.integers(0, 255, SHAPE).astype(np.uint8))
    return folder, weights, predict(folder, weights, planned(folder, weights, 512), "whole")


def planned(folder, weights, tile_px, regions=None):
    config = TileConfig(image=ImageConfig(), tile_px=tile_px, mirror_px=16, skip_glass=True)
    with open_slide(folder / "a.tif", memory_mb=1000) as slide:
        card = load_network(weights)[1]
        return plan_open_slide(slide, card, 1000, config, slide_sha256="", tissue=None, regions=regions)


@pytest.mark.parametrize("tile_px", [48, 112, None])
def test_labels_inside_are_those_of_the_whole_slide(whole, tmp_path, tile_px):
    folder, weights, (labels, probabilities, _) = whole
    plan = planned(folder, weights, tile_px, Regions(names=["disc", "corner"], areas=[[area] for area in AREAS]))
    found, certain, measured = predict(tmp_path, weights, plan, "part")
    computed = np.zeros(SHAPE, dtype=bool)
    for tile in plan.tiles():
        computed[tile.part.slices] = True
    assert np.any([centres_in(area, SHAPE) for area in AREAS], axis=0)[~computed].sum() == 0
    assert computed.mean() < 0.5
    assert measured.pixels == computed.sum()
    np.testing.assert_array_equal(found, np.where(computed, labels, 0))
    np.testing.assert_allclose(certain[:, computed], probabilities[:, computed], atol=2e-3)
    assert (certain[0, ~computed] == 1).all()
    assert (certain[1:, ~computed] == 0).all()
    assert 0.05 < labels[computed].mean() < 0.95
