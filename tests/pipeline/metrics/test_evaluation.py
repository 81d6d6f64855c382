"""Metrics do not depend on how a mask is stored and read, and a large mask takes little memory."""

import numpy as np
import pandas as pd
import pytest
import skimage.measure
import skimage.metrics
import tifffile
from stardist.matching import matching

from pipeline.masks.ome_tiff import write_label_images
from pipeline.metrics.evaluation import LabelledImage, measure
from pipeline.metrics.overlap import confusion, per_class
from pipeline.prediction.store import write_predictions
from pipeline.report.columns import columns
from pipeline.settings.schema import MetricsConfig
from pipeline.settings.stage_sections import EvaluateConfig, LabelConfig
from pipeline.tiling.grid import Grid, Region
from tests.support.commands import run_command, run_stage
from tests.support.masks import numbered
from tests.support.pairs import blobs

CLASSES = ["background", "cell", "nucleus"]
CONFIG = EvaluateConfig(labels=LabelConfig(classes=CLASSES, kind="classes"), metrics=MetricsConfig())
COMMON = {"model": "unet", "slide": "slide.tif", "threads": 2, "memory_mb": 100}


def large(generator, *, values=2, times=16):
    """A map of many blobs, (592, 688): more than one block each way."""
    return np.kron(blobs(generator, values=values), np.ones((times, times), np.uint8))


def labelled(classes):
    objects = numbered(classes)
    return LabelledImage(classes=classes, objects=objects, count=int(objects.max()))


def evaluate(folder, truth, predicted, *, instances=None, config=CONFIG, pixel_size_um=None, **more):
    """The row that the stage writes of a reference and a mask on disk."""
    images = {"classes": predicted} | ({} if instances is None else {"instances": instances})
    write_label_images(folder / "mask.ome.tiff", images, pixel_size_um=pixel_size_um, annotations={"sample": "a"})
    tifffile.imwrite(folder / "truth.tif", truth, compression="zlib", rowsperstrip=7)
    files = {"mask": folder / "mask.ome.tiff", "reference": folder / "truth.tif", "output": folder / "a.csv"}
    flags = COMMON | files | more | {"config": config.model_dump_json()}
    assert run_command("evaluate", sample="=a", **flags) == 0
    return pd.read_csv(folder / "a.csv").iloc[0]


def assert_measured(row, truth, predicted, classes, pixel_size_um):
    """Check a row against the metrics of both maps in memory."""
    about = {"classes": classes, "config": MetricsConfig(), "pixel_size_um": pixel_size_um, "probabilities": None}
    for name, value in measure(labelled(truth), labelled(predicted), **about).items():
        assert row[name] == (value if isinstance(value, str) else pytest.approx(value, nan_ok=True)), name


def test_metrics_of_files_equal_those_of_arrays(tmp_path, generator):
    truth, predicted = large(generator), large(generator)
    row = evaluate(tmp_path, truth, predicted, pixel_size_um=(0.5, 0.5))
    assert row["distance_unit"] == "um"
    assert_measured(row, truth, predicted, CLASSES, pixel_size_um=(0.5, 0.5))
    np.testing.assert_allclose(
        row[[f"dice_{label}" for label in CLASSES]].astype(float),
        per_class("dice", confusion(truth, predicted, num_classes=3)),
    )


def test_objects_of_a_reference_may_have_any_ids_and_touch(tmp_path, generator):
    objects = skimage.measure.label(large(generator, values=1), connectivity=1).astype(np.uint16) * 7
    objects[:, 300:][objects[:, 300:] > 0] += 1000  # what crosses column 300 is two objects that touch
    predicted = large(generator, values=1)
    labels = LabelConfig(classes=["background", "cell"], kind="instances")
    row = evaluate(tmp_path, objects, predicted, config=EvaluateConfig(labels=labels, metrics=MetricsConfig()))
    found = skimage.measure.label(predicted, connectivity=1)
    theirs = matching(objects, found, thresh=0.5)
    assert (row["objects_truth"], row["objects_predicted"]) == (theirs.n_true, theirs.n_pred)
    assert row["objects_matched_50"] == theirs.tp
    assert row["adapted_rand_error"] == pytest.approx(skimage.metrics.adapted_rand_error(objects, found)[0])


def test_objects_of_a_mask_come_from_its_image_of_ids(tmp_path, generator):
    """Objects of one class that touch, as after a watershed; and ids with gaps, as after an edit by hand."""
    truth = large(generator)
    objects = skimage.measure.label(truth, connectivity=1).astype(np.uint32)
    objects[:, 300:][objects[:, 300:] > 0] += 1000
    row = evaluate(tmp_path, truth, truth, instances=objects)
    count = len(np.unique(objects)) - 1
    assert row["objects_predicted"] == count > row["objects_truth"]
    assert row["objects_matched_50"] < count
    assert evaluate(tmp_path, truth, truth)["objects_predicted"] == row["objects_truth"]


@pytest.mark.parametrize(
    ("metrics", "pixel_size_um", "tolerance"),
    [
        ({}, None, 2.0),
        ({"tolerance_um": 9.0}, None, 2.0),
        ({"tolerance_px": 3.0}, (0.5, 0.5), 1.5),
        ({"tolerance_um": 9.0}, (0.5, 0.5), 9.0),
    ],
)
def test_distances_are_in_um_if_the_pixel_size_is_known(tmp_path, metrics, pixel_size_um, tolerance):
    truth, predicted = np.zeros((2, 40, 40), np.uint8)
    truth[20, 20], predicted[20, 26] = 1, 1
    config = EvaluateConfig(labels=CONFIG.labels, metrics=MetricsConfig(**metrics))
    row = evaluate(tmp_path, truth, predicted, config=config, pixel_size_um=pixel_size_um)
    assert row["tolerance"] == tolerance
    assert row["hausdorff95_cell"] == pytest.approx(6 * (pixel_size_um or (1.0,))[0])
    assert row["surface_dice_cell"] == float(tolerance == 9)


def test_a_metric_without_value_is_an_empty_cell(tmp_path):
    empty = np.zeros((20, 30), np.uint8)
    row = evaluate(tmp_path, empty, empty)
    assert row["dice_background"] == row["dice_mean"] == row["pixel_accuracy"] == 1
    absent = [f"{name}_cell" for name in ("dice", "jaccard", "precision", "recall", "hausdorff95", "boundary_iou")]
    absent += ["objects_f1_50", "objects_ap_mean", "panoptic_quality", "aggregated_jaccard", "adapted_rand_error"]
    assert row[absent].isna().all()
    assert (row["objects_truth"], row["objects_predicted"], row["specificity_cell"]) == (0, 0, 1)


def test_kept_probabilities_are_measured(tmp_path, generator):
    truth, predicted = large(generator), large(generator)
    probabilities = (0.05 + 0.85 * (np.arange(3)[:, None, None] == predicted)).astype(np.float16)
    grid = Grid(shape=truth.shape, tile=truth.shape, halo_px=0, stride_px=1, overlap_px=0)
    with write_predictions(tmp_path / "p.zarr.zip", num_classes=3, probabilities=True, identity="a") as writer:
        writer.begin("=a", grid)
        region = Region(top=0, left=0, bottom=truth.shape[0], right=truth.shape[1])
        writer.write("=a", region, predicted, probabilities)
        writer.finish({})
    row = evaluate(tmp_path, truth, predicted, prediction=tmp_path / "p.zarr.zip")
    assert row["calibration_error"] == pytest.approx(abs(float(np.float16(0.9)) - (truth == predicted).mean()))
    for index, label in enumerate(CLASSES):
        share = (truth == index).mean()
        hit = ((truth == index) & (predicted == index)).sum()
        sure, recall = hit / (predicted == index).sum(), hit / (truth == index).sum()
        assert row[f"average_precision_{label}"] == pytest.approx(recall * sure + (1 - recall) * share)


def test_every_metric_has_a_described_column(tmp_path, generator):
    row = evaluate(tmp_path, large(generator), large(generator))
    known = [column.name for column in columns(CLASSES)]
    assert [name for name in known if name in row.index] == list(row.index)
    assert len(set(known)) == len(known)
    assert all(column.about.endswith(".") for column in columns(CLASSES))
    assert row["sample"] == "'=a"  # a name like a formula is text in a spreadsheet


@pytest.mark.slow
def test_a_mask_of_20000_px_takes_less_than_a_gigabyte_and_a_crop_of_it_is_exact(tmp_path, generator):
    """Truth and prediction repeat one field of blobs, so that a crop has the same metrics."""
    field = {name: np.kron(blobs(generator), np.ones((24, 24), np.uint8))[:512, :512] for name in ("truth", "mask")}
    labels = LabelConfig(classes=["background", "cell"], kind="classes")
    config = EvaluateConfig(labels=labels, metrics=MetricsConfig()).model_dump_json()
    rows = {}
    for side in (4096, 20_000):
        for name, pixels in field.items():
            repeats = -(-side // 512)
            band = np.tile(pixels, (1, repeats))[:, :side]
            tiles = (
                np.pad(band, ((0, 0), (0, repeats * 512 - side)))[:, left : left + 512]
                for _ in range(repeats)
                for left in range(0, repeats * 512, 512)
            )
            tifffile.imwrite(
                tmp_path / f"{name}.tif", tiles, shape=(side, side), dtype="uint8", tile=(512, 512), compression="zlib"
            )
        files = {"mask": tmp_path / "mask.tif", "reference": tmp_path / "truth.tif", "output": tmp_path / f"{side}.csv"}
        flags = (f"--{name.replace('_', '-')}={value}" for name, value in (COMMON | files).items())
        _, peak = run_stage("evaluate", "--sample=a", *flags, config=config)
        assert peak < 1024 * 10**6
        rows[side] = pd.read_csv(tmp_path / f"{side}.csv").iloc[0]
    truth, predicted = (np.tile(pixels, (8, 8)) for pixels in field.values())
    assert_measured(rows[4096], truth, predicted, labels.classes, pixel_size_um=None)
    whole = confusion(*(np.tile(pixels, (1, 40))[:, :20_000] for pixels in field.values()), num_classes=2) * 39
    whole += confusion(*(np.tile(pixels[:32], (1, 40))[:, :20_000] for pixels in field.values()), num_classes=2)
    assert rows[20_000]["pixels_cell_as_cell"] == whole[1, 1]
    assert rows[20_000]["dice_cell"] == pytest.approx(per_class("dice", whole)[1])
