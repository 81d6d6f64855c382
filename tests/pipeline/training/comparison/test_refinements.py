"""A random field is chosen where it makes the classes of held-back images better, and only there."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from pipeline.metrics.evaluation import LabelledImage
from pipeline.networks.model_card import Refinement
from pipeline.settings.masks import MaskConfig, resolve_masks
from pipeline.training.comparison import refinements
from pipeline.training.comparison.pair_metrics import PairPredictor, PredictedPair
from pipeline.training.comparison.refinements import compare_refinements, mean_refinements

NONE, SMOOTH, SHARP = None, {"smoothness": 3.0, "appearance": 0.0}, {"smoothness": 1.0, "appearance": 2.0}


PAIRS = [SimpleNamespace(name="0"), SimpleNamespace(name="1")]


class Predictor:
    """A network that is wrong in a share of the pixels of a disc, on an image that shows the disc."""

    card = SimpleNamespace(classes=["background", "object"])

    def __init__(self, wrong):
        self.wrong = wrong

    predict_up_to = PairPredictor.predict_up_to

    def plan(self, _):
        return SimpleNamespace(grid=SimpleNamespace(shape=(64, 64)))

    @contextmanager
    def predict(self, pair, *_, keep):
        assert keep == {"probabilities"}
        generator = np.random.default_rng(int(pair.name))
        rows, columns = np.indices((64, 64)) - 32
        truth = rows**2 + columns**2 < 400
        said = truth ^ (generator.random(truth.shape) < self.wrong)
        likely = np.where(said, 0.7, 0.3)
        group = zarr.create_group({})
        for name, array in (("labels", said.astype(np.uint8)), ("probabilities", np.stack([1 - likely, likely]))):
            group.create_array(name, data=array.astype(np.float16) if array.dtype == float else array)
        image = (truth + 0.02 * generator.normal(size=truth.shape))[None].astype(np.float32)
        true = truth.astype(np.uint8)
        known = LabelledImage(classes=true, objects=true, count=1)
        yield PredictedPair(group=group, labels=group["labels"], image=image, truth=known)


@pytest.mark.parametrize(("wrong", "is_chosen"), [(0.2, True), (0.0, False)])
def test_a_field_is_chosen_where_it_is_better(tmp_path, wrong, is_chosen):
    table = compare_refinements(Predictor(wrong), PAIRS, scratch=tmp_path)
    assert len(table) == len(refinements._TRIED)
    assert (table[0].settings, table[0].foreground_dice < 0.8) == (None, is_chosen)
    card = {"crf": [vars(one) for one in table]}
    chosen = resolve_masks(MaskConfig(instances="none", crf="auto"), card).crf
    assert (chosen is not None) == is_chosen
    assert max(one.foreground_dice for one in table) > 0.99


def test_images_beyond_the_limit_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(refinements, "_ENOUGH_PX", 64**2)
    monkeypatch.setattr(refinements, "_TRIED", [NONE])
    one = compare_refinements(Predictor(0.2), PAIRS[:1], scratch=tmp_path)
    assert compare_refinements(Predictor(0.2), PAIRS, scratch=tmp_path) == one
    monkeypatch.setattr(refinements, "_ENOUGH_PX", 100)
    assert compare_refinements(Predictor(0.2), PAIRS[:1], scratch=tmp_path) == []


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([0.8, 0.9, 0.85], SMOOTH),
        ([0.9, 0.9, 0.9], NONE),  # it must be better
        ([None, 0.9, 0.95], SHARP),
        ([None, None, None], NONE),
        ([], NONE),
    ],
)
def test_auto_is_the_best_field_or_none(scores, chosen):
    tried = zip([NONE, SMOOTH, SHARP], scores, strict=False)
    card = {"crf": [{"settings": settings, "foreground_dice": score} for settings, score in tried]}
    found = resolve_masks(MaskConfig(instances="none", crf="auto"), card)
    assert found == resolve_masks(MaskConfig.model_validate({"instances": "none", "crf": chosen}), card)
    assert resolve_masks(MaskConfig(instances="none", crf="auto"), {"crf": None}).crf is None


def test_the_table_of_an_ensemble_is_the_mean_of_its_members():
    first = [Refinement(settings=NONE, foreground_dice=0.8), Refinement(settings=SMOOTH, foreground_dice=0.6)]
    second = [Refinement(settings=NONE, foreground_dice=0.9), Refinement(settings=SMOOTH, foreground_dice=None)]
    assert mean_refinements([first, second]) == [Refinement(settings=NONE, foreground_dice=pytest.approx(0.85))]
    assert mean_refinements([first, []]) == mean_refinements([]) == []
