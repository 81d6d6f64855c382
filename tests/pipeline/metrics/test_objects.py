"""Objects and partitions: by hand, and against stardist and scikit-image."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import skimage.measure
import skimage.metrics
from stardist.matching import matching

from pipeline.metrics.names import THRESHOLDS
from pipeline.metrics.objects import Overlaps, contingency, merge_shared, partition, shared_pixels
from tests.support.pairs import pairs


def table_of(truth, predicted, cut=17):
    parts = [shared_pixels(truth[rows], predicted[rows]) for rows in (slice(0, cut), slice(cut, None))]
    return contingency(merge_shared(parts), (int(truth.max()), int(predicted.max())))


def labelled(maps):
    return [skimage.measure.label(labels, connectivity=1) for labels in maps]


def test_by_hand():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2], [0, 0, 0, 0, 0, 3, 0]])
    predicted = np.array([[1, 1, 1, 0, 0, 2, 0], [0, 0, 0, 0, 0, 0, 4]])
    overlaps = Overlaps(table_of(truth, np.where(predicted == 4, 3, predicted), cut=1))
    half, strict = overlaps.match(0.5), overlaps.match(0.55)
    assert (half.matched, half.false_positive, half.false_negative) == (2, 1, 1)
    assert half.mean_iou == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert half.panoptic_quality == pytest.approx((3 / 4 + 1 / 2) / (2 + 1 / 2 + 1 / 2))
    assert (strict.matched, strict.precision, strict.recall) == (1, 1 / 3, 1 / 3)
    assert strict.average_precision == 1 / 5
    assert overlaps.aggregated_jaccard() == pytest.approx((3 + 1) / (4 + 2 + 1 + 1))


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([[1, 1, 0, 2, 2]], [[1, 1, 0, 2, 2]], (0, 0, 0, 0)),
        ([[1, 1, 0, 2, 2]], [[1, 1, 1, 1, 1]], (1, 0, 0, 0)),
        ([[1, 1, 1, 1, 1]], [[1, 1, 0, 2, 2]], (0, 1, 0, 0)),
        ([[1, 1, 1, 2, 2, 2]], [[1, 1, 2, 2, 2, 2]], (0, 0, 0, 0)),  # a border in the wrong place
        ([[1, 1, 1, 2, 2, 2]], [[1, 1, 1, 1, 0, 0]], (0, 0, 1, 0)),  # a third of object 2 is not most of it
        ([[1, 1, 2, 2, 3, 3]], [[1, 1, 1, 1, 1, 1]], (1, 0, 0, 0)),  # three in one are one merged object
        ([[1, 1, 1, 1, 0, 0]], [[1, 1, 2, 0, 0, 0]], (0, 1, 0, 0)),
        ([[1, 1, 0, 0, 0, 0]], [[1, 1, 0, 2, 2, 0]], (0, 0, 0, 1)),
        ([[1, 1, 0, 2, 2, 0]], [[1, 0, 0, 0, 2, 2]], (0, 0, 2, 1)),  # exactly half is not found
        ([[1, 1, -1, -1, -1, -1]], [[1, 1, 0, 2, 2, 2]], (0, 0, 0, 0)),  # where nothing is annotated
    ],
)
def test_merged_split_missed_and_spurious_objects_by_hand(truth, predicted, expected):
    errors = overlaps_where_known(np.array(truth), np.array(predicted)).errors()
    assert dataclasses.astuple(errors) == expected


def test_an_error_of_objects_only_counts_within_a_class():
    table = table_of(np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 1]]), cut=1)
    errors = Overlaps(table, (np.array([0, 1, 2]), np.array([0, 1]))).errors()
    assert dataclasses.astuple(errors) == (0, 0, 1, 1)


def test_an_object_only_matches_one_of_its_class():
    truth = predicted = np.array([[1, 1, 0, 2]])
    table = table_of(truth, predicted, cut=1)
    same = Overlaps(table, (np.array([0, 1, 2]), np.array([0, 1, 2])))
    other = Overlaps(table, (np.array([0, 1, 2]), np.array([0, 1, 1])))
    assert (same.match(0.5).matched, other.match(0.5).matched) == (2, 1)


def overlaps_where_known(truth, predicted):
    """Truth -1 is not annotated."""
    unknown = int(truth.max()) + 1
    shared = shared_pixels(np.where(truth < 0, unknown, truth), predicted)
    table = contingency(shared, (unknown, int(predicted.max())))
    return Overlaps(table[:unknown], unknown=table[[unknown]].toarray()[0])


@pytest.mark.parametrize(
    ("truth", "predicted", "expected", "aggregated"),
    [
        # A whole object in unknown pixels is no error.
        ([[1, 1, 0, -1, -1, -1]], [[1, 1, 0, 2, 2, 0]], (1, 0, 0), 1),
        # More than half of it there: no error. Exactly half: an error of its known pixels.
        ([[1, 0, 0, -1, -1, -1]], [[1, 0, 2, 2, 2, 0]], (1, 0, 0), 1),
        ([[1, 0, 0, -1, -1, -1]], [[1, 0, 2, 2, 0, 0]], (1, 1, 0), 1 / 2),
        # An object that goes on into unknown pixels is compared where it is known, and has its partner.
        ([[0, 1, 1, -1, -1, -1]], [[0, 1, 1, 1, 1, 1]], (1, 0, 0), 1),
        # Below half of the union of known pixels: the true one is missed, the hidden one no error.
        ([[1, 1, 1, -1, -1, -1]], [[0, 0, 1, 1, 1, 1]], (0, 0, 1), 1 / 3),
        # Of two halves, the hidden one is no partner, since it shares not more than half.
        ([[0, 1, 1, -1, -1, 0]], [[0, 1, 2, 2, 2, 0]], (1, 0, 0), 1 / 2),
    ],
)
def test_objects_at_pixels_without_annotation_by_hand(truth, predicted, expected, aggregated):
    overlaps = overlaps_where_known(np.array(truth), np.array(predicted))
    found = overlaps.match(0.5)
    assert (found.matched, found.false_positive, found.false_negative) == expected
    assert overlaps.aggregated_jaccard() == pytest.approx(aggregated)


def test_an_object_predicted_as_two_halves_is_matched_once():
    overlaps = Overlaps(table_of(np.array([[1, 1]]), np.array([[1, 2]]), cut=1))
    assert overlaps.match(0.5).matched == 1
    assert overlaps.match(0.5).mean_iou == 0.5
    with pytest.raises(ValueError, match="at least 0.5"):
        overlaps.match(0.4)


def test_against_stardist():
    for maps in pairs():
        truth, predicted = labelled(maps)
        overlaps = Overlaps(table_of(truth, predicted))
        for threshold in THRESHOLDS:
            ours, theirs = overlaps.match(threshold), matching(truth, predicted, thresh=threshold)
            assert (ours.matched, ours.false_positive, ours.false_negative) == (theirs.tp, theirs.fp, theirs.fn)
            if theirs.n_true + theirs.n_pred:
                assert ours.f1 == pytest.approx(theirs.f1)
                assert ours.average_precision == pytest.approx(theirs.accuracy)
                assert ours.panoptic_quality == pytest.approx(theirs.panoptic_quality)
            else:
                assert np.isnan([ours.f1, ours.average_precision, ours.panoptic_quality]).all()
            if theirs.tp:
                assert ours.mean_iou == pytest.approx(theirs.mean_matched_score)


def plain_aggregated_jaccard(truth, predicted):
    """As in algorithm 1 of Kumar et al., object by object."""
    intersection, union, used = 0, 0, set()
    for true in range(1, truth.max() + 1):
        here = truth == true
        overlaps = [
            (-(here & (predicted == other)).sum() / (here | (predicted == other)).sum(), other)
            for other in np.unique(predicted[here])
            if other
        ]
        if not overlaps:
            union += here.sum()
            continue
        best = min(overlaps)[1]
        used.add(best)
        intersection += (here & (predicted == best)).sum()
        union += (here | (predicted == best)).sum()
    union += sum((predicted == other).sum() for other in range(1, predicted.max() + 1) if other not in used)
    return intersection / union if union else np.nan


def test_the_aggregated_jaccard_index_is_that_of_the_paper():
    for maps in pairs():
        truth, predicted = labelled(maps)
        ours = Overlaps(table_of(truth, predicted)).aggregated_jaccard()
        assert ours == pytest.approx(plain_aggregated_jaccard(truth, predicted), nan_ok=True)


def test_partitions_against_scikit_image():
    for maps in pairs():
        truth, predicted = labelled(maps)
        ours = partition(table_of(truth, predicted))
        if not truth.any():
            assert np.isnan([ours.adapted_rand_error, ours.voi_split, ours.voi_merge]).all()
            continue
        with np.errstate(invalid="ignore"):
            expected = skimage.metrics.adapted_rand_error(truth, predicted)[0]
        assert ours.adapted_rand_error == pytest.approx(expected, nan_ok=True)
        split, merge = skimage.metrics.variation_of_information(truth, predicted, ignore_labels=(0,))
        assert (ours.voi_split, ours.voi_merge) == (pytest.approx(split), pytest.approx(merge))


def test_splits_and_merges_are_measured_apart():
    one, two = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    split, merged = partition(table_of(one, two, cut=1)), partition(table_of(two, one, cut=1))
    assert (split.voi_split, split.voi_merge) == (pytest.approx(1), pytest.approx(0))
    assert (merged.voi_split, merged.voi_merge) == (pytest.approx(0), pytest.approx(1))


def test_matching_is_as_large_as_the_best_assignment():
    for maps in pairs(60):
        truth, predicted = labelled(maps)
        overlaps = Overlaps(table_of(truth, predicted))
        if not (truth.any() and predicted.any()):
            continue
        good = np.zeros((truth.max(), predicted.max()))
        good[overlaps.true, overlaps.predicted] = overlaps.iou >= 0.5
        rows, columns = scipy.optimize.linear_sum_assignment(good, maximize=True)
        assert overlaps.match(0.5).matched == good[rows, columns].sum()
