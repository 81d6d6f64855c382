"""The stages by hand, without Snakemake: files in, files out, and the first law from a slide to its mask."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from pipeline.__main__ import STAGES, main
from pipeline.base.files import read_json
from pipeline.networks.weights_file import load_network
from pipeline.prediction.speed import read_speed
from pipeline.prediction.store import open_prediction
from pipeline.project.stage_settings import stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.schema import ImageConfig, MaskConfig, Settings
from pipeline.settings.stages import TrainConfig, parse_stage_config
from pipeline.slides.intensity import Statistics, normalize
from pipeline.slides.slide import open_slide
from pipeline.tiling.plan import read_plan
from pipeline.training.data.annotated import open_pairs
from tests.support.masks import split_the_whole
from tests.support.networks import CLASSES, write_network
from tests.support.prediction import assert_equal_but_for_ties, logits_of_the_whole
from tests.support.slide_files import write_batch

SETTINGS = Settings(classes=CLASSES)
COLOURED = SETTINGS.model_copy(update={"image": ImageConfig(channels=[0, 1, 2])})


def segment(folder, weights, settings=SETTINGS):
    """Run tile, predict and stitch on every image in ``folder/slides`` as one batch; return the masks by sample."""
    slides = sorted((folder / "slides").iterdir())
    card = str(weights.with_name("model.json"))
    common = ["--memory-mb", "1000"]
    for slide in slides:
        plan = ["--sample", f"batch/{slide.stem}", "--slide", str(slide), "--model", card, *common]
        output = ["--output", str(folder / f"plans/batch/{slide.stem}.json")]
        assert main(["tile", *plan, *output, "--config", stage_config(settings, "tile")]) == 0
    places = [
        "--weights",
        str(weights),
        "--plans",
        str(folder / "plans"),
        "--batch",
        "batch",
        "--threads",
        "2",
        *common,
    ]
    prediction = str(folder / "batch.zarr.zip")
    write_batch(folder / "slides.json", "batch", [f"batch/{slide.stem}" for slide in slides])
    places += ["--slides", str(folder / "slides.json")]
    places += ["--output", prediction, "--speed", str(folder / "batch.json")]
    assert main(["predict", *places, "--config", stage_config(settings, "predict")]) == 0
    for slide in slides:
        plan = [
            "--sample",
            f"batch/{slide.stem}",
            "--plan",
            str(folder / f"plans/batch/{slide.stem}.json"),
            "--model",
            card,
        ]
        output = ["--prediction", prediction, "--output", str(folder / f"masks/{slide.stem}.ome.tiff")]
        assert main(["stitch", *plan, *output, "--config", stage_config(settings, "stitch")]) == 0
    return {slide.stem: folder / f"masks/{slide.stem}.ome.tiff" for slide in slides}


def demo_slides():
    """The two micrographs of the demo: 512 x 512 uint16, and 1024 x 1344 uint8."""
    stardist, mahotas = (Path(pytest.importorskip(name).__file__).parent for name in ("stardist", "mahotas"))
    with open_slide(mahotas / "demos" / "data" / "nuclear.png", memory_mb=1000) as nuclear:
        return {"nuclei": tifffile.imread(stardist / "data/images/img2d.tif"), "nuclear": nuclear.read_all()[0]}


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_masks_of_the_demo_slides_equal_one_pass_over_the_whole(tmp_path, padding):
    """From file to file, in float32: other tiles, the same labels."""
    weights = write_network(tmp_path / "network", width=6, padding=padding)
    network, _ = load_network(weights)
    (tmp_path / "slides").mkdir()
    pixels = demo_slides()
    for name, image in pixels.items():
        tifffile.imwrite(tmp_path / "slides" / f"{name}.tif", image, tile=(128, 128), compression="zlib")
    tiling = SETTINGS.tiling.model_copy(update={"tile_px": 208})
    masks = segment(tmp_path, weights, SETTINGS.model_copy(update={"tiling": tiling}))
    for name, image in pixels.items():
        low, high = np.percentile(image, [1, 99.8], method="inverted_cdf")
        statistics = Statistics(minimum=0, maximum=0, mean=0, low=float(low), high=float(high))
        whole = logits_of_the_whole(network, normalize(image[None], [statistics]))
        classes = tifffile.imread(masks[name], series=0)
        assert 0.01 < classes.mean() < 0.99
        assert_equal_but_for_ties(classes, whole)


def test_a_whole_slide_at_another_pixel_size_equals_one_pass_over_it(tmp_path, data):
    """From an SVS to a mask with a pyramid and the pixel size that was asked for."""
    weights = write_network(tmp_path / "network", width=4)
    network, _ = load_network(weights)
    (tmp_path / "slides").mkdir()
    slide = Path(shutil.copy(data / "wsi" / "CMU-1-Small-Region.svs", tmp_path / "slides" / "slide.svs"))
    view = ImageConfig(channels=[1], pixel_size_um=2.3)
    tiling = SETTINGS.tiling.model_copy(update={"tile_px": 208})
    masks = segment(tmp_path, weights, SETTINGS.model_copy(update={"tiling": tiling, "image": view}))
    with open_slide(slide, memory_mb=1000, view=view) as opened:
        image = opened.read_all()
    low, high = np.percentile(image, [1, 99.8], method="inverted_cdf")
    statistics = Statistics(minimum=0, maximum=0, mean=0, low=float(low), high=float(high))
    with tifffile.TiffFile(masks["slide"]) as mask:
        assert mask.series[0].shape == (round(2967 * 0.499 / 2.3), round(2220 * 0.499 / 2.3))
        assert len(mask.series[0].levels) > 1
        assert 'PhysicalSizeX="2.3"' in mask.ome_metadata
        assert_equal_but_for_ties(
            mask.series[0].asarray(), logits_of_the_whole(network, normalize(image, [statistics]))
        )


def test_training_sees_the_grid_of_the_view(tmp_path, generator):
    """Images of half a µm, learned at 1 µm; labels have the shape of the file, or already that of the view."""
    image = generator.integers(0, 255, (40, 60, 3)).astype(np.uint8)
    labels = {"fine": np.kron(generator.integers(0, 3, (20, 30)), np.ones((2, 2), int)).astype(np.uint8)}
    labels["coarse"] = labels["fine"][::2, ::2]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name, of_image in labels.items():
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", image, photometric="rgb")
        tifffile.imwrite(tmp_path / "labels" / f"{name}.tif", of_image)
    view = ImageConfig(channels=[2, 0], pixel_size_um=1.0, fallback_pixel_size_um=0.5)
    settings = SETTINGS.model_copy(update={"image": view})
    places = ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels"), "--memory-mb", "100"]
    output = ["--output", str(tmp_path / "weights")]
    assert main(["weigh", *places, *output, "--config", stage_config(settings, "weigh")]) == 0
    config = parse_stage_config(TrainConfig, stage_config(settings, "train"))
    pairs = find_pairs(tmp_path / "images", tmp_path / "labels")
    coarse, fine = open_pairs(pairs, tmp_path / "weights", memory_mb=100, config=config)
    assert fine.image.shape == (2, 20, 30)
    np.testing.assert_array_equal(fine.image[:], coarse.image[:])
    np.testing.assert_array_equal(fine.classes, coarse.classes)
    np.testing.assert_array_equal(fine.weights, coarse.weights)
    assert fine.weights.shape == (20, 30)


def test_probabilities_are_kept_on_request(tmp_path, generator):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    (tmp_path / "slides").mkdir()
    tifffile.imwrite(tmp_path / "slides" / "a.tif", generator.integers(0, 255, (50, 60)).astype(np.uint8))
    asked = SETTINGS.prediction.model_copy(update={"probabilities": True})
    masks = segment(tmp_path, weights, SETTINGS.model_copy(update={"prediction": asked}))
    with open_prediction(tmp_path / "batch.zarr.zip", "batch/a") as group:
        probabilities = group["probabilities"][:].astype(float)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=2e-3)
    decided = np.abs(probabilities[1] - 0.5) > 1e-3
    classes = tifffile.imread(masks["a"], series=0)
    np.testing.assert_array_equal(classes[decided], probabilities.argmax(axis=0)[decided])


def write_slide(folder, generator, shape=(90, 120)):
    (folder / "slides").mkdir()
    tifffile.imwrite(folder / "slides" / "a.tif", generator.integers(0, 255, shape).astype(np.uint8))


def with_masks(**masks):
    return SETTINGS.model_copy(update={"masks": MaskConfig(**masks)})


def test_a_watershed_mask_has_the_objects_of_the_whole_image(tmp_path, generator):
    """From slide to mask: predict writes the probabilities, stitch parts the objects by them; twice the same bytes."""
    weights = write_network(tmp_path / "network", width=2, depth=2)
    write_slide(tmp_path, generator)
    settings = with_masks(instances="watershed")
    masks = segment(tmp_path, weights, settings)
    content = masks["a"].read_bytes()
    classes, instances = (tifffile.imread(masks["a"], series=index) for index in (0, 1))
    with open_prediction(tmp_path / "batch.zarr.zip", "batch/a") as group:
        labels, probabilities = group["labels"][:], group["probabilities"][:]
    np.testing.assert_array_equal(classes, labels)
    np.testing.assert_array_equal(instances, split_the_whole(labels, probabilities))
    assert segment(tmp_path, weights, settings)["a"].read_bytes() == content


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"instances": "watershed"}, "has no probabilities, which masks.instances 'watershed' needs; predict again"),
        (
            {"min_object_um2": 3.0},
            r"a.tif: has no pixel size, which masks.min_object_um2 \(3\) and .* need; set image.fa",
        ),
    ],
)
def test_what_a_mask_setting_needs_and_does_not_have_is_one_line(tmp_path, generator, capsys, masks, message):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    write_slide(tmp_path, generator)
    segment(tmp_path, weights)
    words = ["--sample", "batch/a", "--prediction", str(tmp_path / "batch.zarr.zip")]
    words += ["--plan", str(tmp_path / "plans/batch/a.json"), "--model", str(weights.with_name("model.json"))]
    config = stage_config(with_masks(**masks), "stitch")
    assert main(["stitch", *words, "--output", str(tmp_path / "a.ome.tiff"), "--config", config]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(f"^error: stitch: .*{message}", last)
    assert not (tmp_path / "a.ome.tiff").exists()


def test_tiles_of_glass_are_background_and_all_others_as_if_nothing_was_skipped(tmp_path, generator, monkeypatch):
    monkeypatch.setattr("pipeline.tiling.tissue._LEAST_PX", 1)
    weights = write_network(tmp_path / "network", in_channels=3, width=6, depth=2)
    pixels = np.full((400, 390, 3), 240, dtype=np.uint8)
    pixels[150:260, 100:220] = generator.integers(60, 200, (110, 120, 3))
    masks, speeds, kept = {}, {}, {}
    for skip_glass in (True, False):
        folder = tmp_path / str(skip_glass)
        (folder / "slides").mkdir(parents=True)
        tifffile.imwrite(folder / "slides" / "a.tif", pixels, photometric="rgb")
        tiling = SETTINGS.tiling.model_copy(update={"tile_px": 64, "skip_glass": skip_glass})
        prediction = SETTINGS.prediction.model_copy(update={"probabilities": True})
        settings = COLOURED.model_copy(update={"tiling": tiling, "prediction": prediction})
        masks[skip_glass] = tifffile.imread(segment(folder, weights, settings)["a"], series=0)
        speeds[skip_glass] = read_speed(folder / "batch.json")
        with open_prediction(folder / "batch.zarr.zip", "batch/a") as group:
            kept[skip_glass] = group["probabilities"][:]
    planned = read_plan(tmp_path / "True" / "plans" / "batch" / "a.json").slide
    glass = np.zeros((400, 390), dtype=bool)
    for tile in planned.glass():
        glass[tile.write.slices] = True
    assert 0.2 < glass.mean() < 0.9
    assert not glass[150:260, 100:220].any()
    assert masks[False][glass].any()  # this network calls glass an object
    np.testing.assert_array_equal(masks[True], np.where(glass, 0, masks[False]))
    background = np.array([1, 0])[:, None, None]
    np.testing.assert_array_equal(kept[True], np.where(glass, background, kept[False]))
    assert (speeds[True].pixels, speeds[False].pixels) == ((~glass).sum(), glass.size)
    assert speeds[True].uncertain["batch/a"] <= speeds[False].uncertain["batch/a"]


def test_nothing_is_skipped_where_tiles_are_blended(tmp_path, monkeypatch):
    """The neighbours of a tile are part of what it becomes."""
    monkeypatch.setattr("pipeline.tiling.tissue._LEAST_PX", 1)
    weights = write_network(tmp_path / "network", "pspnet", in_channels=3, width=2)
    pixels = np.full((400, 390, 3), 240, dtype=np.uint8)
    pixels[150:260, 100:220] = 90
    (tmp_path / "slides").mkdir()
    tifffile.imwrite(tmp_path / "slides" / "a.tif", pixels, photometric="rgb")
    tiling = SETTINGS.tiling.model_copy(update={"tile_px": 64})
    segment(tmp_path, weights, COLOURED.model_copy(update={"tiling": tiling}))
    assert read_plan(tmp_path / "plans" / "batch" / "a.json").slide.tissue is None


def test_a_slide_damaged_after_it_was_planned_costs_itself_alone(tmp_path, generator, capsys):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    (tmp_path / "slides").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "slides" / f"{name}.tif", generator.integers(0, 255, (50, 60)).astype(np.uint8))
    segment(tmp_path, weights)
    (tmp_path / "slides" / "a.tif").write_bytes(b"")
    places = ["--weights", str(weights), "--plans", str(tmp_path / "plans"), "--batch", "batch", "--threads", "2"]
    places += ["--slides", str(tmp_path / "slides.json")]
    places += ["--memory-mb", "1000", "--speed", str(tmp_path / "batch.json")]
    output = ["--output", str(tmp_path / "batch.zarr.zip")]
    assert main(["predict", *places, *output, "--config", stage_config(SETTINGS, "predict")]) == 0
    assert read_speed(tmp_path / "batch.json").pixels == 50 * 60
    with open_prediction(tmp_path / "batch.zarr.zip", "batch/b") as group:
        assert group["labels"].shape == (50, 60)
    common = ["--sample", "batch/a", "--prediction", str(tmp_path / "batch.zarr.zip")]
    plan = ["--plan", str(tmp_path / "plans/batch/a.json"), "--model", str(weights.with_name("model.json"))]
    assert main(["stitch", *common, *plan, "--output", str(tmp_path / "a.ome.tiff"), "--config", "{}"]) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith(f"error: predict: {tmp_path}/slides/a.tif: cannot be read")
    )
    assert not (tmp_path / "a.ome.tiff").exists()


def test_the_speed_of_a_batch_is_measured_beside_its_prediction(tmp_path, generator):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    (tmp_path / "slides").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "slides" / f"{name}.tif", generator.integers(0, 255, (50, 60)).astype(np.uint8))
    segment(tmp_path, weights)
    speed = read_speed(tmp_path / "batch.json")
    assert (speed.pixels, speed.threads) == (2 * 50 * 60, 2)
    assert 0 < speed.network_s < speed.wall_s
    assert (speed.differing_px, speed.compared_px) == (0, 0)  # the tiles of a U-Net are exact
    assert read_json(tmp_path / "batch.json")["provenance"]["stage"] == "predict"


def test_a_plan_keeps_where_it_is_from(tmp_path, generator):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    (tmp_path / "slides").mkdir()
    tifffile.imwrite(tmp_path / "slides" / "a.tif", generator.integers(0, 255, (50, 60)).astype(np.uint8))
    segment(tmp_path, weights)
    provenance = read_json(tmp_path / "plans" / "batch" / "a.json")["provenance"]
    assert provenance["stage"] == "tile"
    assert provenance["config"]["tile_px"] == SETTINGS.tiling.tile_px
    assert len(provenance["sha256"]["model_json"]) == 64


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.write_bytes(b"not weights"), "weights cannot be loaded"),
        (lambda weights: weights.unlink(), "weights cannot be loaded"),
        (lambda weights: weights.with_name("model.json").write_text("{}"), "not a model.json of Slidemill: KeyError"),
        (lambda weights: weights.with_name("model.json").unlink(), "model.json: not a readable JSON file"),
        (lambda weights: edit(weights, '"width": 2', '"width": 3'), "weights are not those of"),
        (lambda weights: edit(weights, '"percentile"', '"z-score"'), "normalization .* is not known"),
        (lambda weights: edit(weights, '"unet"', '"vnet"'), "unknown model 'vnet'; available: .*unet"),
    ],
)
def test_a_network_that_cannot_be_loaded_is_one_line(tmp_path, capsys, spoil, message):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    spoil(weights)
    places = [
        "--weights",
        str(weights),
        "--plans",
        str(tmp_path),
        "--slides",
        str(tmp_path / "slides.json"),
        "--batch",
        "x",
        "--threads",
        "1",
        "--memory-mb",
        "99",
    ]
    places += ["--output", str(tmp_path / "x.zarr.zip"), "--speed", str(tmp_path / "x.json")]
    assert main(["predict", *places, "--config", stage_config(SETTINGS, "predict")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: predict: ")
    assert re.search(message, last)


def edit(weights, old, new):
    card = weights.with_name("model.json")
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_help(stage):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", stage, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "--config JSON" in done.stdout


@pytest.mark.parametrize("words", [[], ["tilt"], ["tile", "--unknown", "1"], ["tile"]])
def test_wrong_words_on_the_command_line_are_an_error(words):
    done = subprocess.run([sys.executable, "-m", "pipeline", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_loading_a_network_leaves_it_ready_to_predict(tmp_path):
    network, card = load_network(write_network(tmp_path, width=2, depth=2))
    assert not network.training
    assert card.classes == CLASSES
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_combine_writes_one_network_that_averages(tmp_path):
    paths = [write_network(tmp_path / name, width=width, depth=2) for name, width in (("a", 2), ("b", 3))]
    output = tmp_path / "both" / "model.safetensors"
    words = ["--networks", *map(str, paths), "--output", str(output)]
    assert main(["combine", *words, "--config", '{"members": ["a", "b"], "scales": [1, 0.5]}']) == 0
    both, card = load_network(output)
    assert (card.architecture, card.classes, card.geometry.stride_px) == ("ensemble", CLASSES, 8)
    members = [load_network(path)[0] for path in paths]
    assert card.parameters == sum(parameter.numel() for network in members for parameter in network.parameters())
    assert all(
        torch.equal(value, members[index].state_dict()[name])
        for index in (0, 1)
        for name, value in both.members[index].state_dict().items()
    )


def test_combine_refuses_networks_of_other_classes(tmp_path, capsys):
    paths = [write_network(tmp_path / name, width=2, depth=1) for name in ("a", "b")]
    edit(paths[1], '"object"', '"nucleus"')
    words = ["--networks", *map(str, paths), "--output", str(tmp_path / "both" / "model.safetensors")]
    assert main(["combine", *words, "--config", '{"members": ["a", "b"]}']) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: combine: {paths[1]}: 1 channels and classes ['background', 'nucleus']")
    assert not (tmp_path / "both").exists()
