"""The stages without Snakemake, from slides to masks that equal one pass over the whole slide."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from pipeline.base.files import read_json
from pipeline.networks.weights_file import load_network
from pipeline.prediction.measurements import read_speed
from pipeline.prediction.store import open_prediction
from pipeline.project.stage_settings import stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.settings.stage_sections import TrainConfig, parse_stage_config
from pipeline.slides.intensity import Statistics, normalize
from pipeline.slides.slide import open_slide
from pipeline.tiling.plan import read_plan
from pipeline.training.data.annotated_slides import open_pairs
from tests.support.commands import run_command
from tests.support.masks import split_the_whole
from tests.support.networks import CLASSES, write_network
from tests.support.prediction import assert_equal_but_for_ties, logits_of_the_whole
from tests.support.slide_files import write_batch

SETTINGS = Settings(classes=CLASSES)
RGB = {"channels": [0, 1, 2]}


def run(stage, settings=SETTINGS, **flags):
    """Run a stage with its part of the settings; return the exit status."""
    return run_command(stage, **flags, config=stage_config(settings, stage))


def predict(folder, weights, settings=SETTINGS):
    """Predict the batch of a folder."""
    inputs = {"network": weights, "plans": folder / "plans", "slides": folder / "slides.json", "batch": "batch"}
    outputs = {"output": folder / "batch.zarr.zip", "speed": folder / "batch.json"}
    return run("predict", settings, **inputs, **outputs, threads=2, memory_mb=1000)


def stitch(folder, weights, name, output, settings=SETTINGS):
    """Write the mask of one slide of the batch of a folder."""
    inputs = {"prediction": folder / "batch.zarr.zip", "plan": folder / f"plans/batch/{name}.json"}
    card = weights.with_name("model.json")
    return run("stitch", settings, sample=f"batch/{name}", **inputs, model=card, output=output)


def segment(folder, weights, settings=SETTINGS):
    """Run tile, predict and stitch on every image in ``folder/slides`` as one batch; return the masks by sample."""
    slides = {slide.stem: slide for slide in sorted((folder / "slides").iterdir())}
    for name, slide in slides.items():
        files = {
            "slide": slide,
            "model": weights.with_name("model.json"),
            "output": folder / f"plans/batch/{name}.json",
        }
        assert run("tile", settings, sample=f"batch/{name}", **files, memory_mb=1000) == 0
    write_batch(folder / "slides.json", "batch", [f"batch/{name}" for name in slides])
    assert predict(folder, weights, settings) == 0
    masks = {name: folder / f"masks/{name}.ome.tiff" for name in slides}
    for name, mask in masks.items():
        assert stitch(folder, weights, name, mask, settings) == 0
    return masks


def write_slides(folder, slides, **options):
    """Write slides; they are given as pixels by name."""
    (folder / "slides").mkdir(parents=True)
    for name, pixels in slides.items():
        tifffile.imwrite(folder / "slides" / f"{name}.tif", pixels, **options)


def random_slides(generator, *names):
    return {name: generator.integers(0, 255, (90, 120)).astype(np.uint8) for name in names}


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """A folder with two slides and their masks, and the network; tests read it only."""
    folder = tmp_path_factory.mktemp("segmented")
    weights = write_network(folder / "network", width=2, depth=2)
    write_slides(folder, random_slides(np.random.default_rng(0), "a", "b"))
    segment(folder, weights)
    return folder, weights


def demo_slides():
    """The two micrographs of the demo: 512 x 512 uint16, and 1024 x 1344 uint8."""
    stardist, mahotas = (Path(pytest.importorskip(name).__file__).parent for name in ("stardist", "mahotas"))
    with open_slide(mahotas / "demos" / "data" / "nuclear.png", memory_mb=1000) as nuclear:
        return {"nuclei": tifffile.imread(stardist / "data/images/img2d.tif"), "nuclear": nuclear.read_all()[0]}


def normalized(image):
    low, high = np.percentile(image, [1, 99.8], method="inverted_cdf")
    return normalize(image, [Statistics(minimum=0, maximum=0, mean=0, low=float(low), high=float(high))])


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_masks_of_the_demo_slides_equal_one_pass_over_the_whole(tmp_path, padding):
    """From file to file, in float32."""
    weights = write_network(tmp_path / "network", width=6, padding=padding)
    network, _ = load_network(weights)
    pixels = demo_slides()
    write_slides(tmp_path, pixels, tile=(128, 128), compression="zlib")
    masks = segment(tmp_path, weights, Settings(classes=CLASSES, tiling={"tile_px": 208}))
    for name, image in pixels.items():
        whole = logits_of_the_whole(network, normalized(image[None]))
        classes = tifffile.imread(masks[name], series=0)
        assert 0.01 < classes.mean() < 0.99
        assert_equal_but_for_ties(classes, whole)


def test_a_whole_slide_at_another_pixel_size_equals_one_pass_over_it(tmp_path, data):
    """From an SVS to a mask with a pyramid and the requested pixel size."""
    weights = write_network(tmp_path / "network", width=4)
    network, _ = load_network(weights)
    (tmp_path / "slides").mkdir()
    slide = Path(shutil.copy(data / "wsi" / "CMU-1-Small-Region.svs", tmp_path / "slides" / "slide.svs"))
    view = ImageConfig(channels=[1], pixel_size_um=2.3)
    masks = segment(tmp_path, weights, Settings(classes=CLASSES, tiling={"tile_px": 208}, image=view))
    with open_slide(slide, memory_mb=1000, view=view) as opened:
        image = opened.read_all()
    with tifffile.TiffFile(masks["slide"]) as mask:
        assert mask.series[0].shape == (round(2967 * 0.499 / 2.3), round(2220 * 0.499 / 2.3))
        assert len(mask.series[0].levels) > 1
        assert 'PhysicalSizeX="2.3"' in mask.ome_metadata
        assert_equal_but_for_ties(mask.series[0].asarray(), logits_of_the_whole(network, normalized(image)))


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
    settings = Settings(classes=CLASSES, image=view)
    folders = {"images": tmp_path / "images", "labels": tmp_path / "labels", "output": tmp_path / "weights"}
    assert run("weigh", settings, **folders, memory_mb=100) == 0
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
    write_slides(tmp_path, random_slides(generator, "a"))
    masks = segment(tmp_path, weights, Settings(classes=CLASSES, prediction={"probabilities": True}))
    with open_prediction(tmp_path / "batch.zarr.zip", "batch/a") as group:
        probabilities = group["probabilities"][:].astype(float)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=2e-3)
    decided = np.abs(probabilities[1] - 0.5) > 1e-3
    classes = tifffile.imread(masks["a"], series=0)
    np.testing.assert_array_equal(classes[decided], probabilities.argmax(axis=0)[decided])


def test_a_watershed_mask_has_the_objects_of_the_whole_image(tmp_path, generator):
    """From slide to mask: predict writes the probabilities, stitch splits by them, twice to the same bytes."""
    weights = write_network(tmp_path / "network", width=2, depth=2)
    write_slides(tmp_path, random_slides(generator, "a"))
    settings = Settings(classes=CLASSES, masks={"instances": "watershed"})
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
        ({"min_object_um2": 3.0}, r"a.tif: has no pixel size, which masks.min_object_um2 \(3\) .* need; set image.fa"),
    ],
)
def test_a_mask_setting_without_its_input_is_an_error(tmp_path, segmented, capsys, masks, message):
    assert stitch(*segmented, "a", tmp_path / "a.ome.tiff", Settings(classes=CLASSES, masks=masks)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(f"^error: stitch: .*{message}", last)
    assert not (tmp_path / "a.ome.tiff").exists()


def test_skipped_glass_is_background_and_all_other_tiles_are_unchanged(tmp_path, generator, monkeypatch):
    monkeypatch.setattr("pipeline.tiling.tissue._LEAST_PX", 1)
    weights = write_network(tmp_path / "network", in_channels=3, width=6, depth=2)
    pixels = np.full((400, 390, 3), 240, dtype=np.uint8)
    pixels[150:260, 100:220] = generator.integers(60, 200, (110, 120, 3))
    masks, speeds, kept = {}, {}, {}
    for skip_glass in (True, False):
        folder = tmp_path / str(skip_glass)
        write_slides(folder, {"a": pixels}, photometric="rgb")
        tiling = {"tile_px": 64, "skip_glass": skip_glass}
        settings = Settings(classes=CLASSES, image=RGB, tiling=tiling, prediction={"probabilities": True})
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
    """The result of a tile there depends on its neighbours."""
    monkeypatch.setattr("pipeline.tiling.tissue._LEAST_PX", 1)
    weights = write_network(tmp_path / "network", "pspnet", in_channels=3, width=2)
    pixels = np.full((400, 390, 3), 240, dtype=np.uint8)
    pixels[150:260, 100:220] = 90
    write_slides(tmp_path, {"a": pixels}, photometric="rgb")
    segment(tmp_path, weights, Settings(classes=CLASSES, image=RGB, tiling={"tile_px": 64}))
    assert read_plan(tmp_path / "plans" / "batch" / "a.json").slide.tissue is None


def test_a_slide_damaged_after_it_was_planned_fails_alone(tmp_path, generator, capsys):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    write_slides(tmp_path, random_slides(generator, "a", "b"))
    segment(tmp_path, weights)
    (tmp_path / "slides" / "a.tif").write_bytes(b"")
    assert predict(tmp_path, weights) == 0
    assert read_speed(tmp_path / "batch.json").pixels == 90 * 120
    with open_prediction(tmp_path / "batch.zarr.zip", "batch/b") as group:
        assert group["labels"].shape == (90, 120)
    assert stitch(tmp_path, weights, "a", tmp_path / "a.ome.tiff") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: predict: {tmp_path}/slides/a.tif: cannot be read")
    assert not (tmp_path / "a.ome.tiff").exists()


def test_the_speed_of_a_batch_is_measured_beside_its_prediction(segmented):
    speed = read_speed(segmented[0] / "batch.json")
    assert (speed.pixels, speed.threads) == (2 * 90 * 120, 2)
    assert 0 < speed.network_s < speed.wall_s
    assert (speed.differing_px, speed.compared_px) == (0, 0)  # the tiles of a U-Net are exact
    assert read_json(segmented[0] / "batch.json")["provenance"]["stage"] == "predict"


def test_a_plan_has_its_provenance(segmented):
    provenance = read_json(segmented[0] / "plans" / "batch" / "a.json")["provenance"]
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
        (lambda weights: edit(weights, '"percentile"', '"z-score"'), "unknown normalization"),
        (lambda weights: edit(weights, '"unet"', '"vnet"'), "unknown model 'vnet'; available: .*unet"),
    ],
)
def test_a_network_that_cannot_be_loaded_is_one_line(tmp_path, capsys, spoil, message):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    spoil(weights)
    assert predict(tmp_path, weights) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: predict: ")
    assert re.search(message, last)


def edit(weights, old, new):
    card = weights.with_name("model.json")
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))


def test_loading_a_network_leaves_it_ready_to_predict(tmp_path):
    network, card = load_network(write_network(tmp_path, width=2, depth=2))
    assert not network.training
    assert card.classes == CLASSES
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_combine_writes_one_network_that_averages(tmp_path):
    paths = [write_network(tmp_path / name, width=width, depth=2) for name, width in (("a", 2), ("b", 3))]
    output = tmp_path / "both" / "model.safetensors"
    config = '{"members": ["a", "b"], "scales": [1, 0.5]}'
    assert run_command("combine", networks=paths, output=output, config=config) == 0
    both, card = load_network(output)
    assert (card.architecture, card.classes, card.geometry.stride_px) == ("ensemble", CLASSES, 8)
    members = [load_network(path)[0] for path in paths]
    assert card.parameters == sum(parameter.numel() for network in members for parameter in network.parameters())
    for member, own in zip(members, both.members, strict=True):
        assert all(torch.equal(value, own.state_dict()[name]) for name, value in member.state_dict().items())


def test_combine_refuses_networks_of_other_classes(tmp_path, capsys):
    paths = [write_network(tmp_path / name, width=2, depth=1) for name in ("a", "b")]
    edit(paths[1], '"object"', '"nucleus"')
    output = tmp_path / "both" / "model.safetensors"
    assert run_command("combine", networks=paths, output=output, config='{"members": ["a", "b"]}') == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: combine: {paths[1]}: 1 channels and classes ['background', 'nucleus']")
    assert not (tmp_path / "both").exists()
