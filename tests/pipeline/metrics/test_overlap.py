"""Overlap metrics by hand on four pixels, and against scikit-learn on random maps."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.metrics.overlap import OVERLAP, confusion, mean_over_classes, per_class, pixel_accuracy, pooled
from tests.support.pairs import pairs

maps = arrays(np.uint8, (6, 7), elements=st.integers(0, 2))
SKLEARN = {
    "dice": sklearn.metrics.f1_score,
    "jaccard": sklearn.metrics.jaccard_score,
    "precision": sklearn.metrics.precision_score,
    "recall": sklearn.metrics.recall_score,
}


def test_by_hand():
    truth, predicted = np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, 1]])
    counts = confusion(truth, predicted, num_classes=2)
    assert counts.tolist() == [[1, 0], [1, 2]]
    expected = {
        "dice": [2 / 3, 4 / 5],
        "jaccard": [1 / 2, 2 / 3],
        "precision": [1 / 2, 1],
        "recall": [1, 2 / 3],
        "specificity": [2 / 3, 1],
        "accuracy": [3 / 4, 3 / 4],
    }
    assert set(expected) == set(OVERLAP)
    for name, values in expected.items():
        assert per_class(name, counts).tolist() == pytest.approx(values)
    assert mean_over_classes(per_class("dice", counts)) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert (pixel_accuracy(counts), pooled("dice", counts), pooled("jaccard", counts)) == (3 / 4, 3 / 4, 3 / 5)


def test_a_class_absent_from_both_has_no_value_and_one_absent_from_one_has_zero():
    counts = confusion(np.zeros((2, 2), int), np.array([[0, 0], [0, 1]]), num_classes=3)
    for name in ("dice", "jaccard", "precision"):
        values = per_class(name, counts)
        assert values[1] == 0
        assert np.isnan(values[2])
        assert mean_over_classes(values) == pytest.approx(values[:2].mean())
    assert np.isnan(per_class("recall", counts)).tolist() == [False, True, True]
    assert np.isnan(mean_over_classes(np.array([np.nan, np.nan])))
    assert np.isnan(pixel_accuracy(np.zeros((2, 2), int)))


@given(truth=maps, predicted=maps)
def test_dice_follows_from_jaccard(truth, predicted):
    counts = confusion(truth, predicted, num_classes=3)
    jaccard = per_class("jaccard", counts)
    np.testing.assert_allclose(per_class("dice", counts), 2 * jaccard / (1 + jaccard))


def test_against_scikit_learn():
    for truth, predicted in pairs(values=2):
        counts = confusion(truth, predicted, num_classes=3)
        flat = truth.ravel(), predicted.ravel()
        np.testing.assert_array_equal(counts, sklearn.metrics.confusion_matrix(*flat, labels=[0, 1, 2]))
        assert pixel_accuracy(counts) == pytest.approx(sklearn.metrics.accuracy_score(*flat))
        for name, theirs in SKLEARN.items():
            ours, expected = per_class(name, counts), theirs(*flat, labels=[0, 1, 2], average=None, zero_division=0)
            np.testing.assert_allclose(np.nan_to_num(ours, nan=0), expected)
            denominator = {"precision": flat[1], "recall": flat[0]}.get(name, np.concatenate(flat))
            np.testing.assert_array_equal(np.isnan(ours), ~np.isin([0, 1, 2], denominator))
            assert pooled(name, counts) == pytest.approx(theirs(*flat, labels=[0, 1, 2], average="micro"))
        for index in range(3):
            (right, wrong), (missed, hit) = sklearn.metrics.confusion_matrix(
                flat[0] == index, flat[1] == index, labels=[False, True]
            )
            assert per_class("specificity", counts)[index] == pytest.approx(
                right / (right + wrong) if right + wrong else np.nan, nan_ok=True
            )
            assert per_class("accuracy", counts)[index] == pytest.approx((right + hit) / (right + wrong + missed + hit))


@given(truth=maps, predicted=maps, cut=st.integers(0, 6))
def test_counts_of_blocks_add_up(truth, predicted, cut):
    whole = confusion(truth, predicted, num_classes=3)
    parts = [confusion(truth[rows], predicted[rows], num_classes=3) for rows in (slice(0, cut), slice(cut, 6))]
    np.testing.assert_array_equal(sum(parts), whole)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"truth and predicted differ in shape: \(2, 2\) and \(2, 3\)"):
        confusion(np.zeros((2, 2), int), np.zeros((2, 3), int), num_classes=2)
