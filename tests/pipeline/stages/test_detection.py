"""A network that detects objects goes through all stages; what it cannot do is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from pipeline.__main__ import main
from pipeline.base import paths
from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json
from pipeline.masks.mask_file import open_mask
from pipeline.project.checks import check_masks
from pipeline.project.stage_settings import stage_config
from pipeline.settings.masks import MaskConfig, resolve_masks
from pipeline.settings.schema import Settings, parse_settings
from tests.support.detection import planted_discs
from tests.support.jobs import Jobs
from tests.support.training import FOLDERS

NETWORK = {
    "architecture": "mask_rcnn",
    "options": {"width": 8},
    "patch_px": 64,
    "batch_size": 2,
    "max_steps": 120,
    "validate_every": 60,
    "learning_rate": 0.003,
    "precision": "float32",
}
WEIGHTS = Path(paths.NETWORK.format(model="net"))


def draw(folder, name, ids):
    """Write an image of discs and its labels."""
    pixels = np.random.default_rng(0).integers(0, 40, ids.shape) + 150 * (ids > 0)
    for kind, values in {"images": pixels.astype(np.uint8), "labels": ids.astype(np.uint16)}.items():
        (folder / kind).mkdir(exist_ok=True)
        tifffile.imwrite(folder / kind / f"{name}.tif", values)


def train(folder, settings, discs=16):
    """Train on three images of some discs in the current folder; return the exit status."""
    for seed, name in enumerate("abc"):
        ids = planted_discs(4, 4, seed=seed)
        draw(folder, name, np.where(ids <= discs, ids, 0))
    weigh = ["weigh", "--model=net", *FOLDERS, "--memory-mb=100"]
    assert main([*weigh, "--config", stage_config(settings, "weigh", "net")]) == 0
    flags = ["--weight-maps=results/weight_maps/net", "--threads=2", "--devices=1", "--memory-mb=2000"]
    return main(["train", "--model=net", *FOLDERS, *flags, "--config", stage_config(settings, "train", "net")])


@pytest.mark.slow
def test_detected_objects_are_in_all_results(in_folder, caplog):
    caplog.set_level("INFO")
    assert train(in_folder, Settings(models={"net": NETWORK})) == 0
    card = read_json(WEIGHTS.with_name("model.json"))
    sides = [
        np.ptp(np.nonzero(planted_discs(4, 4, seed=seed) == number), axis=1).max() + 1
        for seed in range(3)
        for number in range(1, 17)
    ]
    assert card["object_px"] == card["options"]["largest_px"] == max(sides)
    assert f"'largest_px': {max(sides):.1f}" in caplog.text
    history = pd.read_csv(WEIGHTS.with_name("history.csv"))
    assert {f"loss_{name}" for name in ("class", "box", "mask", "objectness", "proposal")} < set(history)
    assert [one["settings"]["instances"] for one in card["parting"]] == ["detected"]

    ids = planted_discs(9, 8, seed=7)
    draw(in_folder, "slide", ids)
    jobs = Jobs(WEIGHTS, tiling={"tile_px": 64}, prediction={"probabilities": True})
    jobs.put("slide", Path("images/slide.tif"), Path("labels/slide.tif"))
    entries = jobs.run("tile", "predict", "stitch", "objects", "evaluate")
    metrics = pd.read_csv(jobs.path(paths.METRICS, "slide")).iloc[0]
    assert metrics["objects_f1_50"] > 0.6, metrics  # after a minute of training
    assert entries["slide"].failure is None
    with open_mask(jobs.mask("slide"), memory_mb=100) as mask:
        instances, classes = mask.instances[:], mask.classes[:]
    np.testing.assert_array_equal(instances > 0, classes == 1)
    table = pd.read_csv(jobs.path(paths.OBJECTS, "slide"))
    assert table["id"].tolist() == list(range(1, instances.max() + 1))
    assert table["score"].between(0.5, 1).all()
    outlines = json.loads(jobs.path(paths.ANNOTATIONS, "slide").read_text())["features"]
    shown = {int(one["properties"]["name"]): one["properties"]["measurements"]["Score"] for one in outlines}
    assert shown == dict(zip(table["id"], table["score"], strict=True))
    assert "score_mean" in pd.read_csv(jobs.path(paths.REGIONS, "slide"))

    verify = ["verify", f"--network={WEIGHTS}", f"--plan={jobs.path(paths.PLAN, 'slide')}", "--output=v.json"]
    verify += ["--threads=2", "--memory-mb=4000", "--config", stage_config(jobs.settings, "verify", "net")]
    assert main(verify) == 0
    found = read_json(Path("v.json"))
    assert (found["law"], found["checks"]) == ("does not apply", [])
    assert 0 <= found["mismatch"] < 0.5
    assert "of them differ between tiles and one pass" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masks": {"instances": "watershed"}}, "models.net: masks.instances 'watershed': mask_rcnn finds its objects"),
        ({"masks": {"crf": {}}}, "models.net: masks.crf: mask_rcnn has no probability of each pixel"),
        ({"models": {"net": NETWORK | {"folds": 2}}}, "models.net.folds: objects of mask_rcnn cannot be averaged"),
        ({"training": {"ignored": 255}}, "models.net: mask_rcnn learns every pixel without an object as background"),
        ({"ensembles": {"both": {"members": ["net"]}}}, "ensembles.both: objects of mask_rcnn cannot be averaged"),
        (
            {"models": {"net": {}}, "masks": {"instances": "detected"}},
            "models.net: masks.instances 'detected' is for mask_rcnn, not unet",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_job(settings, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_masks(parse_settings({"models": {"net": NETWORK}} | settings, source=""))
    assert "\n" not in str(error.value)


def test_masks_of_a_checkpoint_follow_from_its_card():
    card = {"architecture": "mask_rcnn"}
    assert resolve_masks(MaskConfig(), card).instances == "detected"
    assert resolve_masks(MaskConfig(instances="none"), card).instances == "none"
    with pytest.raises(ConfigError, match="finds its objects itself"):
        resolve_masks(MaskConfig(instances="partition"), card)


def test_components_are_not_chosen_for_labels_of_classes_if_a_network_detects_objects():
    settings = {"training": {"kind": "classes"}, "models": {"net": NETWORK, "unet": {}}}
    chosen = parse_settings(settings, source="")
    assert chosen.masks.instances == "auto"
    check_masks(chosen)


@pytest.mark.slow
def test_a_patch_that_is_smaller_than_an_object_and_images_without_one_are_errors(in_folder, caplog):
    large = NETWORK | {"options": {"width": 8, "largest_px": 65}}
    train(in_folder, Settings(models={"net": large}))
    assert "patch_px is 64, the largest object 65 px wide or high" in caplog.text
    settings = Settings(models={"net": NETWORK}, training={"allow_empty": True})
    train(in_folder, settings, discs=0)
    assert "mask_rcnn learns from objects, and no training image has one; annotate some" in caplog.text
