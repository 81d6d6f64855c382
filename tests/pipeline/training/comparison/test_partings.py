"""Ways to tell objects apart are compared by their objects alone, over all held-back images together."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import tifffile
from scipy.ndimage import distance_transform_edt

from pipeline.networks.model_card import Parting
from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import Finished
from pipeline.prediction.store import write_prediction
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.crf import CrfConfig
from pipeline.settings.masks import compared_with
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import LabelConfig, TileConfig
from pipeline.training.comparison import pair_metrics, partings, refinements
from pipeline.training.comparison.pair_metrics import PairPredictor
from pipeline.training.comparison.partings import compare_partings, mean_partings
from pipeline.training.comparison.refinements import compare_refinements
from tests.support.networks import CLASSES, write_network


def touching(centres):
    """Two discs that touch in a row of pixels, as ids and as the distance that a perfect network predicts."""
    row, column = np.ogrid[:40, :80]
    ids, distance = np.zeros((40, 80), np.uint8), np.zeros((40, 80))
    for number, centre in enumerate(centres, start=1):
        disc = (row - 20) ** 2 + (column - centre) ** 2 <= 100
        ids[disc] = number
        distance[disc] = distance_transform_edt(disc)[disc] / 11
    return ids, distance


def predictor_of(tmp_path, monkeypatch, *, speck=False, shared=None):
    """A network that predicts classes and distance as they are, two images, and the names of those that it predicts."""
    predicted = []
    images = {"a": touching([20, 41]), "b": touching([15, 60])}
    for name, (ids, _) in images.items():
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", ids)

    def segment(_, card, targets, **asked):
        assert asked["probabilities"]
        names = card.heads if asked["heads"] else []
        for target in targets:
            predicted.append(target.sample)
            ids, distance = images[target.sample]
            likely = (ids > 0).astype(np.float32)
            likely[1:4, 1:4] = speck
            kept = {"num_classes": 2, "probabilities": True, "heads": names, "identity": ""}
            with write_prediction(target.path, target.plan.grid, **kept) as writer:
                for tile in target.plan.tiles():
                    place = tile.write.slices
                    pair, heads = np.stack([1 - likely, likely]), np.rint(255 * distance)[None].astype(np.uint8)
                    own = heads[:, *place] if names else None
                    writer.write(tile.write, (likely[place] > 0.5).astype(np.uint8), pair[:, *place], own)
            yield Finished(target.sample, None)

    monkeypatch.setattr(pair_metrics, "segment_slides", segment)
    network, card = load_network(write_network(tmp_path / "net", width=2))
    card.heads.append("distance")
    card.objects.update({"small_area_px": 100.0} if speck else {})
    predictor = PairPredictor(
        network=network,
        card=card,
        labels=LabelConfig(classes=CLASSES, kind="instances"),
        tile=TileConfig(image=ImageConfig(), tile_px=None, mirror_px=16, skip_glass=False),
        memory_mb=1000,
        threads=1,
        shared=shared,
    )
    pairs = [
        TrainingPair(name=name, image=tmp_path / f"images/{name}.tif", labels=tmp_path / f"labels/{name}.tif")
        for name in images
    ]
    return predictor, pairs, predicted


@pytest.fixture
def compared(tmp_path, monkeypatch, request):
    """The table of such a network, of two images, and perhaps a speck."""
    predictor, pairs, _ = predictor_of(tmp_path, monkeypatch, speck=getattr(request, "param", False))
    return compare_partings(predictor, pairs, scratch=tmp_path)


def test_comparisons_that_share_a_folder_predict_each_image_once(tmp_path, monkeypatch):
    monkeypatch.setattr(refinements, "_TRIED", [None, {"smoothness": 3.0, "appearance": 0.0}])
    monkeypatch.setattr(partings, "_PARTITIONS", [])
    tables = []
    for shared, times in ((None, 2), (tmp_path / "shared", 1)):
        predictor, pairs, predicted = predictor_of(tmp_path, monkeypatch, shared=shared)
        tables.append(
            [compare(predictor, pairs, scratch=tmp_path) for compare in (compare_partings, compare_refinements)]
        )
        assert predicted == ["a", "b"] * times
    assert tables[0] == tables[1]


def test_every_way_is_measured_and_the_right_one_is_best(compared):
    """Components: of four objects, two that touch are one, which matches one of them at an IoU of 0.5, no more."""
    found = {tuple(one.settings.values()): one for one in compared}
    assert found["components",].f1 == pytest.approx((6 / 7 + 8 * 4 / 7) / 9)
    settings = {"instances": "distance", "seed": 0.5, "neck": 0.75}
    assert found["distance", 0.5, 0.75] == Parting(settings=settings, f1=1.0, rand=0.0)
    assert found["components",].rand > 0.1
    assert {one.settings["instances"] for one in compared} == {"components", "watershed", "distance", "partition"}


@pytest.mark.parametrize("compared", [True], indirect=True)
def test_without_specks_more_objects_are_right(compared):
    """A speck of 9 px is below half of a small annotated object."""
    plain, cleaned = (one for one in compared if one.settings["instances"] == "components")
    assert (plain.settings, cleaned.settings["min_object_px"]) == ({"instances": "components"}, "auto")
    assert plain.f1 < cleaned.f1 == pytest.approx((6 / 7 + 8 * 4 / 7) / 9)
    assert all(one.settings["min_object_px"] == "auto" for one in compared if one.settings["instances"] == "distance")


def test_ways_after_a_random_field_are_compared_by_its_classes(tmp_path, monkeypatch):
    predictor, pairs, _ = predictor_of(tmp_path, monkeypatch, speck=0.6)  # of which the network is not sure
    del predictor.card.objects["small_area_px"]
    field = CrfConfig(smoothness=3, appearance=0)
    tables = [compare_partings(predictor, pairs, scratch=tmp_path, field=one) for one in (None, field)]
    without, smoothed = ({one.settings["instances"]: one for one in table} for table in tables)
    assert {json.dumps(one.settings.get("crf")) for one in tables[1]} == {'{"smoothness": 3.0, "appearance": 0.0}'}
    assert smoothed["components"].f1 > without["components"].f1
    known = [asdict(one) for table in tables for one in table]
    assert compared_with(known, field) == known[len(tables[0]) :]
    assert compared_with(known, None) == compared_with(known, CrfConfig()) == known[: len(tables[0])]


def test_the_table_of_an_ensemble_is_the_mean_of_what_all_members_have():
    distance = Parting(settings={"instances": "distance", "seed": 0.5}, f1=0.9, rand=0.1)
    settings = {"instances": "components"}
    components = [Parting(settings=settings, f1=0.5, rand=0.2), Parting(settings=settings, f1=0.7, rand=None)]
    expected = Parting(settings={"instances": "components"}, f1=pytest.approx(0.6), rand=None)
    assert mean_partings([[components[0], distance], [components[1]]]) == [expected]
    assert mean_partings([]) == mean_partings([[], [distance]]) == []
