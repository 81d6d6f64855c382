"""Metrics do not depend on how a mask is stored and read, and a large mask takes little memory."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage.measure
import skimage.metrics
import tifffile
from stardist.matching import matching

from pipeline.base import paths
from pipeline.metrics.evaluation import LabelledImage, copy_reference, measure
from pipeline.metrics.overlap import confusion, per_class
from pipeline.prediction.store import write_prediction
from pipeline.report.columns import columns
from pipeline.settings.schema import MetricsConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.slide import open_plane
from pipeline.tiling.grid import Grid, Region
from tests.support.jobs import Jobs
from tests.support.masks import numbered
from tests.support.pairs import blobs

CLASSES = ["background", "cell", "nucleus"]
TWO = CLASSES[:2]
SAMPLE = "=a"
REFERENCE = Path("truth.tif")


pytestmark = pytest.mark.usefixtures("in_folder")


def large(generator, *, values=2, times=16):
    """A map of many blobs, (592, 688): more than one block each way."""
    return np.kron(blobs(generator, values=values), np.ones((times, times), np.uint8))


def labelled(classes):
    objects = numbered(classes)
    return LabelledImage(classes=classes, objects=objects, count=int(objects.max()))


def jobs_with(classes=CLASSES, kind="classes", **settings):
    return Jobs(classes=classes, training={"kind": kind}, memory_mb=100, **settings)


def evaluate(truth, predicted, *, jobs=None, instances=None, pixel_size_um=None):
    """The row that the stage writes of a reference and a mask on disk."""
    jobs = jobs or jobs_with()
    tifffile.imwrite(REFERENCE, truth, compression="zlib", rowsperstrip=7)
    jobs.put(SAMPLE, REFERENCE, REFERENCE)  # the slide is not read
    jobs.put_mask(
        SAMPLE, {"classes": predicted} | ({} if instances is None else {"instances": instances}), pixel_size_um
    )
    entry = jobs.run("evaluate")[SAMPLE]
    assert entry.is_done, entry.failure
    row = pd.read_csv(jobs.path(paths.METRICS, SAMPLE)).iloc[0]
    for name, value in entry.found["metrics"].items():
        assert row[name] == pytest.approx(value) if value is not None else np.isnan(row[name]), name
    return row


def assert_measured(row, truth, predicted, classes, pixel_size_um):
    """Check a row against the metrics of both maps in memory."""
    about = {"classes": classes, "config": MetricsConfig(), "pixel_size_um": pixel_size_um, "probabilities": None}
    for name, value in measure(labelled(truth), labelled(predicted), **about).items():
        assert row[name] == (value if isinstance(value, str) else pytest.approx(value, nan_ok=True)), name


def test_metrics_of_files_equal_those_of_arrays(generator):
    truth, predicted = large(generator), large(generator)
    row = evaluate(truth, predicted, pixel_size_um=(0.5, 0.5))
    assert row["distance_unit"] == "um"
    assert_measured(row, truth, predicted, CLASSES, pixel_size_um=(0.5, 0.5))
    np.testing.assert_allclose(
        row[[f"dice_{label}" for label in CLASSES]].astype(float),
        per_class("dice", confusion(truth, predicted, num_classes=3)),
    )


def test_objects_of_a_reference_may_have_any_ids_and_touch(generator):
    objects = skimage.measure.label(large(generator, values=1), connectivity=1).astype(np.uint16) * 7
    objects[:, 300:][objects[:, 300:] > 0] += 1000  # what crosses column 300 is two objects that touch
    predicted = large(generator, values=1)
    row = evaluate(objects, predicted, jobs=jobs_with(TWO, "instances"))
    found = skimage.measure.label(predicted, connectivity=1)
    theirs = matching(objects, found, thresh=0.5)
    assert (row["objects_truth"], row["objects_predicted"]) == (theirs.n_true, theirs.n_pred)
    assert row["objects_matched_50"] == theirs.tp
    assert row["adapted_rand_error"] == pytest.approx(skimage.metrics.adapted_rand_error(objects, found)[0])


def test_objects_of_a_mask_come_from_its_image_of_ids(generator):
    """Objects of one class that touch, as after a watershed; and ids with gaps, as after an edit by hand."""
    truth = large(generator)
    objects = skimage.measure.label(truth, connectivity=1).astype(np.uint32)
    objects[:, 300:][objects[:, 300:] > 0] += 1000
    row = evaluate(truth, truth, instances=objects)
    count = len(np.unique(objects)) - 1
    assert row["objects_predicted"] == count > row["objects_truth"]
    assert row["objects_matched_50"] < count
    assert evaluate(truth, truth)["objects_predicted"] == row["objects_truth"]


@pytest.mark.parametrize(
    ("metrics", "pixel_size_um", "tolerance"),
    [
        ({}, None, 2.0),
        ({"tolerance_um": 9.0}, None, 2.0),
        ({"tolerance_px": 3.0}, (0.5, 0.5), 1.5),
        ({"tolerance_um": 9.0}, (0.5, 0.5), 9.0),
    ],
)
def test_distances_are_in_um_if_the_pixel_size_is_known(metrics, pixel_size_um, tolerance):
    truth, predicted = np.zeros((2, 40, 40), np.uint8)
    truth[20, 20], predicted[20, 26] = 1, 1
    row = evaluate(truth, predicted, jobs=jobs_with(metrics=metrics), pixel_size_um=pixel_size_um)
    assert row["tolerance"] == tolerance
    assert row["hausdorff95_cell"] == pytest.approx(6 * (pixel_size_um or (1.0,))[0])
    assert row["surface_dice_cell"] == float(tolerance == 9)


def test_a_metric_without_value_is_an_empty_cell():
    empty = np.zeros((20, 30), np.uint8)
    row = evaluate(empty, empty)
    assert row["dice_background"] == row["dice_mean"] == row["pixel_accuracy"] == 1
    absent = [f"{name}_cell" for name in ("dice", "jaccard", "precision", "recall", "hausdorff95", "boundary_iou")]
    absent += ["objects_f1_50", "objects_ap_mean", "panoptic_quality", "aggregated_jaccard", "adapted_rand_error"]
    assert row[absent].isna().all()
    assert (row["objects_truth"], row["objects_predicted"], row["specificity_cell"]) == (0, 0, 1)


UNKNOWN = 9  # in label files


def sparse(generator):
    """Labels of which a part is not annotated, and a prediction of all of it."""
    truth, predicted = large(generator), large(generator)
    unknown = np.kron(blobs(generator), np.ones((16, 16), np.uint8)) == 1
    return np.where(unknown, UNKNOWN, truth).astype(np.uint8), predicted, unknown


def sparse_jobs(classes=CLASSES, kind="classes", **settings):
    return Jobs(classes=classes, training={"kind": kind, "ignored": UNKNOWN}, memory_mb=100, **settings)


def test_what_is_predicted_in_pixels_without_annotation_changes_no_metric(generator):
    truth, predicted, unknown = sparse(generator)
    row = evaluate(truth, predicted, jobs=sparse_jobs())
    for index, label in enumerate(CLASSES):
        true, found = truth == index, (predicted == index) & ~unknown
        assert row[f"dice_{label}"] == pytest.approx(2 * (true & found).sum() / (true.sum() + found.sum()))
        assert row[f"pixels_predicted_{label}"] == (predicted == index).sum()  # of the whole slide
    assert (row["pixels"], row["pixels_ignored"]) == (truth.size, unknown.sum())
    other = evaluate(
        truth, np.where(unknown, generator.integers(0, 3, truth.shape, np.uint8), predicted), jobs=sparse_jobs()
    )
    changed = [name for name in row.index if name.startswith(("objects_", "pixels_predicted_", "mask_"))]
    changed += ["panoptic_quality", "aggregated_jaccard", "adapted_rand_error", "voi_split", "voi_merge"]
    pd.testing.assert_series_equal(row.drop(changed), other.drop(changed))


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_objects_in_pixels_without_annotation_are_counted_apart(kind):
    """The value of unknown pixels is no object, whether labels are classes or ids."""
    truth, predicted = np.zeros((2, 30, 60), np.uint8)
    truth[4:8, 4:8], truth[20:24, 4:8] = 1, 1 if kind == "classes" else 4
    truth[:, 30:] = UNKNOWN
    predicted[4:8, 4:8] = predicted[20:24, 14:18] = predicted[4:8, 40:44] = predicted[20:24, 27:34] = 1
    row = evaluate(truth, predicted, jobs=sparse_jobs(TWO, kind))
    counts = ["objects_truth", "objects_predicted", "objects_ignored", "objects_difference", "objects_matched_50"]
    assert row[counts].tolist() == [2, 2, 2, 0, 1]
    assert (row["objects_precision_50"], row["objects_recall_50"], row["panoptic_quality"]) == (0.5, 0.5, 0.5)
    assert row["aggregated_jaccard"] == pytest.approx(16 / (16 + 16 + 16))  # found, missed, wrong


def test_a_reference_without_any_annotation_gives_empty_cells():
    nothing = np.full((20, 30), UNKNOWN, np.uint8)
    found = np.zeros((20, 30), np.uint8)
    found[5:9, 5:9] = 1
    row = evaluate(nothing, found, jobs=sparse_jobs(TWO))
    assert row[["dice_mean", "surface_dice_mean", "boundary_iou_mean", "objects_f1_50", "pixel_accuracy"]].isna().all()
    assert (row["pixels"], row["pixels_ignored"], row["objects_ignored"]) == (600, 600, 1)
    assert (row["pixels_truth_cell"], row["pixels_predicted_cell"]) == (0, 16)


def test_kept_probabilities_are_measured(generator):
    truth, predicted = large(generator), large(generator)
    probabilities = (0.05 + 0.85 * (np.arange(3)[:, None, None] == predicted)).astype(np.float16)
    grid = Grid(shape=truth.shape, tile=truth.shape, halo_px=0, surround_px=0, stride_px=1, overlap_px=0)
    jobs = jobs_with(prediction={"probabilities": True})
    path = jobs.path(paths.PREDICTION, SAMPLE)
    with write_prediction(path, grid, num_classes=3, probabilities=True, identity="a") as writer:
        region = Region(top=0, left=0, bottom=truth.shape[0], right=truth.shape[1])
        writer.write(region, predicted, probabilities)
    row = evaluate(truth, predicted, jobs=jobs)
    assert row["calibration_error"] == pytest.approx(abs(float(np.float16(0.9)) - (truth == predicted).mean()))
    for index, label in enumerate(CLASSES):
        share = (truth == index).mean()
        hit = ((truth == index) & (predicted == index)).sum()
        sure, recall = hit / (predicted == index).sum(), hit / (truth == index).sum()
        assert row[f"average_precision_{label}"] == pytest.approx(recall * sure + (1 - recall) * share)


def test_every_metric_has_a_described_column(generator):
    row = evaluate(large(generator), large(generator))
    known = [column.name for column in columns(CLASSES)]
    assert [name for name in known if name in row.index] == list(row.index)
    assert len(set(known)) == len(known)
    assert all(column.about.endswith(".") for column in columns(CLASSES))
    assert row["sample"] == "'=a"  # a name like a formula is text in a spreadsheet


@pytest.mark.slow
def test_a_mask_of_12000_px_takes_less_than_a_gigabyte_and_a_crop_of_it_is_exact(generator):
    """Truth and prediction repeat one field of blobs, so that a crop has the same metrics.

    Classes and ids of both would take 1.4 GB.
    """
    field = {name: np.kron(blobs(generator), np.ones((24, 24), np.uint8))[:512, :512] for name in ("truth", "mask")}
    rows = {}
    for side in (4096, 12_000):
        jobs = jobs_with(TWO)
        jobs.mask(SAMPLE).parent.mkdir(parents=True, exist_ok=True)
        for path, pixels in ((REFERENCE, field["truth"]), (jobs.mask(SAMPLE), field["mask"])):
            repeats = -(-side // 512)
            band = np.tile(pixels, (1, repeats))[:, :side]
            tiles = (
                np.pad(band, ((0, 0), (0, repeats * 512 - side)))[:, left : left + 512]
                for _ in range(repeats)
                for left in range(0, repeats * 512, 512)
            )
            about = {"tile": (512, 512), "compression": "zlib", "metadata": {"Name": "classes"}}
            tifffile.imwrite(path, tiles, shape=(side, side), dtype="uint8", **about)
        jobs.put(SAMPLE, REFERENCE, REFERENCE)
        jobs.record("stitch", mask_sha256="0")
        _, peak = jobs.measure("evaluate")
        assert peak < 1024 * 10**6
        rows[side] = pd.read_csv(jobs.path(paths.METRICS, SAMPLE)).iloc[0]
    truth, predicted = (np.tile(pixels, (8, 8)) for pixels in field.values())
    assert_measured(rows[4096], truth, predicted, TWO, pixel_size_um=None)
    bands = [np.tile(pixels, (1, 24))[:, :12_000] for pixels in field.values()]
    whole = 23 * confusion(*bands, num_classes=2) + confusion(
        *(band[: 12_000 - 23 * 512] for band in bands), num_classes=2
    )
    assert rows[12_000]["pixels_cell_as_cell"] == whole[1, 1]
    assert rows[12_000]["dice_cell"] == pytest.approx(per_class("dice", whole)[1])


@pytest.mark.parametrize(("value", "count"), [(1, 2), (255, 2), (7, 1)])
def test_the_objects_of_a_binary_reference_are_its_components(tmp_path, value, count):
    """Any other value is the id of one object."""
    mask = np.zeros((20, 30), np.uint8)
    mask[2:6, 2:6] = mask[12:16, 20:24] = value
    tifffile.imwrite(REFERENCE, mask)
    with open_plane(REFERENCE, memory_mb=100) as labels:
        copied = copy_reference(labels, LabelConfig(classes=TWO, kind="instances"), tmp_path / "scratch")
        assert copied.count == count
        np.testing.assert_array_equal(copied.classes[:], mask > 0)
