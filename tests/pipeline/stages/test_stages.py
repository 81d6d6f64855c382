"""The stages without Snakemake, from slides to masks that equal one pass over the whole slide."""

import contextlib
import copy
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch

from pipeline.base import paths
from pipeline.base.files import read_json
from pipeline.masks.random_field import mean_field
from pipeline.networks.weights_file import load_network
from pipeline.prediction.store import open_prediction
from pipeline.project.jobs.ledger import network_ledger_path, read_ledger
from pipeline.project.stage_settings import stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.crf import CrfConfig
from pipeline.settings.networks import HeadsConfig, ModelConfig
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.settings.stage_sections import TrainConfig, parse_stage_config
from pipeline.slides.intensity import Statistics, normalize
from pipeline.slides.slide import open_slide
from pipeline.tiling.plan import read_plans
from pipeline.training.data.annotated_slides import open_pairs
from tests.support.commands import run_command
from tests.support.jobs import Jobs
from tests.support.masks import numbered, split_the_whole
from tests.support.networks import CLASSES, write_network
from tests.support.prediction import assert_equal_but_for_ties, logits_of_the_whole

RGB = {"channels": [0, 1, 2]}


def segment(weights, settings=None, **slides):
    """Write slides, and run tile, predict and stitch on them."""
    jobs = Jobs(weights, memory_mb=1000, **settings or {})
    for name, pixels in slides.items():
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(f"{name}.tif", pixels, photometric=photometric, tile=(128, 128), compression="zlib")
        jobs.put(name, Path(f"{name}.tif"))
    entries = jobs.run("tile", "predict", "stitch")
    assert [name for name, entry in entries.items() if entry.is_done] == sorted(slides)
    return jobs


def random_slides(generator, *names):
    return {name: generator.integers(0, 255, (90, 120)).astype(np.uint8) for name in names}


def labels_of(jobs, name):
    return tifffile.imread(jobs.mask(name), series=0)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """A folder with two slides and their masks; tests read it only."""
    folder = tmp_path_factory.mktemp("segmented")
    weights = write_network(folder / "network", width=2, depth=2)
    with contextlib.chdir(folder):
        return folder, segment(weights, **random_slides(np.random.default_rng(0), "a", "b"))


def demo_slides():
    """The two micrographs of the demo: 512 x 512 uint16, and 1024 x 1344 uint8."""
    stardist, mahotas = (Path(pytest.importorskip(name).__file__).parent for name in ("stardist", "mahotas"))
    with open_slide(mahotas / "demos" / "data" / "nuclear.png", memory_mb=1000) as nuclear:
        return {"nuclei": tifffile.imread(stardist / "data/images/img2d.tif"), "nuclear": nuclear.read_all()[0]}


def normalized(image):
    low, high = np.percentile(image, [1, 99.8], method="inverted_cdf")
    return normalize(image, [Statistics(minimum=0, maximum=0, mean=0, low=float(low), high=float(high))])


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_masks_of_the_demo_slides_equal_one_pass_over_the_whole(in_folder, padding):
    """From file to file, in float32."""
    weights = write_network(in_folder / "network", width=6, padding=padding)
    network, _ = load_network(weights)
    pixels = demo_slides()
    jobs = segment(weights, {"tiling": {"tile_px": 208}}, **pixels)
    for name, image in pixels.items():
        whole = logits_of_the_whole(network, normalized(image[None]))
        assert 0.01 < labels_of(jobs, name).mean() < 0.99
        assert_equal_but_for_ties(labels_of(jobs, name), whole)


def test_a_whole_slide_at_another_pixel_size_equals_one_pass_over_it(in_folder, data):
    """From an SVS to a mask with a pyramid and the requested pixel size."""
    weights = write_network(in_folder / "network", width=4)
    network, _ = load_network(weights)
    slide = Path(shutil.copy(data / "wsi" / "CMU-1-Small-Region.svs", "slide.svs"))
    view = {"channels": [1], "pixel_size_um": 2.3}
    jobs = Jobs(weights, tiling={"tile_px": 208}, image=view)
    jobs.put("slide", slide)
    jobs.run("tile", "predict", "stitch")
    with open_slide(slide, memory_mb=1000, view=ImageConfig(**view)) as opened:
        image = opened.read_all()
    with tifffile.TiffFile(jobs.mask("slide")) as mask:
        assert mask.series[0].shape == (round(2967 * 0.499 / 2.3), round(2220 * 0.499 / 2.3))
        assert len(mask.series[0].levels) > 1
        assert 'PhysicalSizeX="2.3"' in mask.ome_metadata
        assert_equal_but_for_ties(mask.series[0].asarray(), logits_of_the_whole(network, normalized(image)))


def test_training_sees_the_grid_of_the_view(in_folder, generator):
    """Images of half a µm, learned at 1 µm; labels have the shape of the file, or already that of the view."""
    image = generator.integers(0, 255, (40, 60, 3)).astype(np.uint8)
    labels = {"fine": np.kron(generator.integers(0, 3, (20, 30)), np.ones((2, 2), int)).astype(np.uint8)}
    labels["coarse"] = labels["fine"][::2, ::2]
    for folder in ("images", "labels"):
        (in_folder / folder).mkdir()
    for name, of_image in labels.items():
        tifffile.imwrite(in_folder / "images" / f"{name}.tif", image, photometric="rgb")
        tifffile.imwrite(in_folder / "labels" / f"{name}.tif", of_image)
    view = ImageConfig(channels=[2, 0], pixel_size_um=1.0, fallback_pixel_size_um=0.5)
    settings = Settings(classes=CLASSES, image=view, models={"net": ModelConfig(heads=HeadsConfig(distance=True))})
    folders = {"images": "images", "labels": "labels", "memory_mb": 100}
    assert run_command("weigh", model="net", **folders, config=stage_config(settings, "weigh", "net")) == 0
    config = parse_stage_config(TrainConfig, stage_config(settings, "train", "net"))
    pairs = find_pairs(Path("images"), Path("labels"))
    weights = Path(paths.WEIGHT_MAPS.format(model="net"))
    entry = read_ledger(network_ledger_path("weigh", "net"))["net"]
    assert entry.files == [str(weights / f"{name}.tif") for name in ("coarse", "fine")]
    coarse, fine = open_pairs(pairs, weights, memory_mb=100, config=config)
    assert fine.image.shape == (2, 20, 30)
    np.testing.assert_array_equal(fine.image[:], coarse.image[:])
    np.testing.assert_array_equal(fine.classes, coarse.classes)
    np.testing.assert_array_equal(fine.maps, coarse.maps)
    assert fine.maps.shape == (2, 20, 30)  # weights and distances


def test_probabilities_are_kept_on_request(in_folder, generator):
    weights = write_network(in_folder / "network", width=2, depth=2)
    jobs = segment(weights, {"prediction": {"probabilities": True}}, **random_slides(generator, "a"))
    with open_prediction(jobs.path(paths.PREDICTION, "a")) as group:
        probabilities = group["probabilities"][:].astype(float)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=2e-3)
    decided = np.abs(probabilities[1] - 0.5) > 1e-3
    np.testing.assert_array_equal(labels_of(jobs, "a")[decided], probabilities.argmax(axis=0)[decided])


def test_a_watershed_mask_has_the_objects_of_the_whole_image(in_folder, generator):
    """From slide to mask: predict writes the probabilities, stitch splits by them, twice to the same bytes."""
    weights = write_network(in_folder / "network", width=2, depth=2)
    jobs = segment(weights, {"masks": {"instances": "watershed"}}, **random_slides(generator, "a"))
    content = jobs.mask("a").read_bytes()
    classes, instances = (tifffile.imread(jobs.mask("a"), series=index) for index in (0, 1))
    with open_prediction(jobs.path(paths.PREDICTION, "a")) as group:
        labels, probabilities = group["labels"][:], group["probabilities"][:]
    np.testing.assert_array_equal(classes, labels)
    np.testing.assert_array_equal(instances, split_the_whole(labels, probabilities))
    shutil.rmtree("results/masks")
    jobs.run("stitch")
    assert jobs.mask("a").read_bytes() == content


def test_a_random_field_refines_the_classes_and_objects_come_after_it(in_folder, generator):
    """From slide to mask: stored probabilities, and the slide as the network saw it. Other settings predict nothing."""
    weights = write_network(in_folder / "network", width=6, depth=2, in_channels=3)
    image = generator.integers(0, 255, (90, 120, 3)).astype(np.uint8)
    jobs = segment(weights, {"image": RGB, "masks": {"crf": {}}}, a=image)
    plan = read_plans(jobs.path(paths.PLAN, "a"))[0]
    predicted = jobs.entries("predict")["a"]
    with open_prediction(jobs.path(paths.PREDICTION, "a")) as group:
        labels, probabilities = group["labels"][:], group["probabilities"][:]
    for stated in ({}, {"smoothness": 4.0, "iterations": 2}):
        jobs.configure(image=RGB, masks={"crf": stated})
        jobs.run("predict", "stitch")
        classes, instances = (tifffile.imread(jobs.mask("a"), series=index) for index in (0, 1))
        beliefs = mean_field(probabilities, normalize(image.transpose(2, 0, 1), plan.statistics), CrfConfig(**stated))
        np.testing.assert_array_equal(classes, beliefs.argmax(axis=0))
        np.testing.assert_array_equal(instances, numbered(classes))
        assert 0 < (classes != labels).mean() < 0.5
    assert jobs.entries("predict")["a"] == predicted


def test_masks_without_a_random_field_do_not_speak_of_it():
    """So those of earlier versions stay up to date."""
    assert "crf" not in stage_config(Settings(), "stitch")


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"instances": "watershed"}, "has no probabilities, which masks.instances 'watershed' needs; predict again"),
        ({"crf": {}}, "has no probabilities, which masks.crf needs; predict again"),
        ({"min_object_um2": 3.0}, r"a.tif: has no pixel size, which masks.min_object_um2 \(3\) .* need; set image.fa"),
    ],
)
def test_a_mask_setting_without_its_input_is_the_failure_of_the_sample(
    tmp_path, segmented, monkeypatch, masks, message
):
    shutil.copytree(segmented[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    jobs = copy.copy(segmented[1])
    jobs.configure(masks=masks)
    jobs.mask("a").unlink()
    entry = jobs.run("stitch")["a"]
    assert (entry.failure.stage, entry.files) == ("stitch", [])
    assert re.search(message, entry.failure.message)
    assert not jobs.mask("a").exists()


def test_skipped_glass_is_background_and_all_other_tiles_are_unchanged(in_folder, generator, monkeypatch):
    monkeypatch.setattr("pipeline.tiling.tissue._LEAST_PX", 1)
    weights = write_network(in_folder / "network", in_channels=3, width=6, depth=2)
    pixels = np.full((400, 390, 3), 240, dtype=np.uint8)
    pixels[150:260, 100:220] = generator.integers(60, 200, (110, 120, 3))
    masks, measured, kept, glass = {}, {}, {}, np.zeros((400, 390), dtype=bool)
    for skip_glass in (True, False):
        (in_folder / str(skip_glass)).mkdir()
        settings = {"image": RGB, "tiling": {"tile_px": 64, "skip_glass": skip_glass}}
        settings["prediction"] = {"probabilities": True}
        monkeypatch.chdir(in_folder / str(skip_glass))
        jobs = segment(weights, settings, a=pixels)
        masks[skip_glass] = labels_of(jobs, "a")
        measured[skip_glass] = jobs.entries("predict")["a"].found
        with open_prediction(jobs.path(paths.PREDICTION, "a")) as group:
            kept[skip_glass] = group["probabilities"][:]
        for tile in read_plans(jobs.path(paths.PLAN, "a"))[0].glass() if skip_glass else ():
            glass[tile.write.slices] = True
    assert 0.2 < glass.mean() < 0.9
    assert not glass[150:260, 100:220].any()
    assert masks[False][glass].any()  # this network calls glass an object
    np.testing.assert_array_equal(masks[True], np.where(glass, 0, masks[False]))
    background = np.array([1, 0])[:, None, None]
    np.testing.assert_array_equal(kept[True], np.where(glass, background, kept[False]))
    assert (measured[True]["pixels"], measured[False]["pixels"]) == ((~glass).sum(), glass.size)
    assert measured[True]["uncertain"] <= measured[False]["uncertain"]


def test_nothing_is_skipped_where_tiles_are_blended(in_folder, monkeypatch):
    """The result of a tile there depends on its neighbours."""
    monkeypatch.setattr("pipeline.tiling.tissue._LEAST_PX", 1)
    weights = write_network(in_folder / "network", "pspnet", in_channels=3, width=2)
    pixels = np.full((400, 390, 3), 240, dtype=np.uint8)
    pixels[150:260, 100:220] = 90
    jobs = segment(weights, {"image": RGB, "tiling": {"tile_px": 64}}, a=pixels)
    assert read_plans(jobs.path(paths.PLAN, "a"))[0].tissue is None


def test_a_slide_damaged_after_it_was_planned_fails_alone(in_folder, generator):
    """In the stage that finds it; the stages after it have no entry of the slide."""
    weights = write_network(in_folder / "network", width=2, depth=2)
    jobs = segment(weights, **random_slides(generator, "a", "b"))
    shutil.rmtree("results/predictions")
    Path("a.tif").write_bytes(b"")
    entries = jobs.run("predict")
    assert entries["b"].found["pixels"] == 90 * 120
    assert (entries["a"].failure.stage, entries["a"].failure.error_class) == ("predict", "SlideError")
    assert entries["a"].failure.message.startswith("a.tif: cannot be read")
    with open_prediction(jobs.path(paths.PREDICTION, "b")) as group:
        assert group["labels"].shape == (90, 120)
    assert list(jobs.run("stitch")) == ["b"]


def test_a_plan_has_its_provenance(segmented):
    folder, jobs = segmented
    provenance = read_json(folder / jobs.path(paths.PLAN, "a"))["provenance"]
    assert provenance["stage"] == "tile"
    assert provenance["config"]["tile_px"] == jobs.settings.tiling.tile_px
    assert len(provenance["sha256"]["model_json"]) == 64


def enlarge(weights):
    state = safetensors.torch.load_file(weights)
    safetensors.torch.save_file(
        state | {"encoder.0.0.weight": torch.full_like(state["encoder.0.0.weight"], 3e38)}, weights
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.write_bytes(b"not weights"), "weights cannot be loaded"),
        (lambda weights: weights.unlink(), "weights cannot be loaded"),
        (
            lambda weights: weights.with_name("model.json").write_text("{}"),
            "not a model.json of Slidemill: it has no 'stride_px'",
        ),
        (lambda weights: weights.with_name("model.json").unlink(), "model.json: not a readable JSON file"),
        (
            lambda weights: edit(weights, '"width": 2', '"width": 3'),
            "weights are not those of",
        ),
        (lambda weights: edit(weights, '"percentile"', '"z-score"'), "unknown normalization"),
        (lambda weights: edit(weights, '"unet"', '"vnet"'), "unknown model 'vnet'; available: .*unet"),
        (enlarge, "[ab].tif: the network returns values that are not finite"),
    ],
)
def test_a_network_that_cannot_be_loaded_fails_every_sample_with_one_line(in_folder, generator, spoil, message):
    weights = write_network(in_folder / "network", width=2, depth=2)
    jobs = segment(weights, **random_slides(generator, "a", "b"))
    spoil(weights)
    shutil.rmtree("results/predictions")
    entries = jobs.run("predict")
    assert list(entries) == ["a", "b"]
    for entry in entries.values():
        assert entry.failure.stage == "predict"
        assert re.search(message, entry.failure.message)


def edit(weights, old, new):
    card = weights.with_name("model.json")
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))


def test_loading_a_network_leaves_it_ready_to_predict(tmp_path):
    network, card = load_network(write_network(tmp_path, width=2, depth=2))
    assert not network.training
    assert card.classes == CLASSES
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
