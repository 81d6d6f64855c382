"""Metrics by hand on four pixels, and against scikit-learn on random maps."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.metrics import confusion, dice, jaccard, mean_over_classes

maps = arrays(np.uint8, (6, 7), elements=st.integers(0, 2))


def test_by_hand():
    truth, predicted = np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, 1]])
    counts = confusion(truth, predicted, num_classes=2)
    assert counts.tolist() == [[1, 0], [1, 2]]
    assert dice(counts).tolist() == pytest.approx([2 / 3, 4 / 5])
    assert jaccard(counts).tolist() == pytest.approx([1 / 2, 2 / 3])
    assert mean_over_classes(dice(counts)) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_a_class_absent_from_both_has_no_value_and_one_absent_from_one_has_zero():
    counts = confusion(np.zeros((2, 2), int), np.array([[0, 0], [0, 1]]), num_classes=3)
    for values in (dice(counts), jaccard(counts)):
        assert values[1] == 0
        assert np.isnan(values[2])
        assert mean_over_classes(values) == pytest.approx(values[:2].mean())
    assert np.isnan(mean_over_classes(np.array([np.nan, np.nan])))


@given(truth=maps, predicted=maps)
def test_against_scikit_learn(truth, predicted):
    counts = confusion(truth, predicted, num_classes=3)
    np.testing.assert_array_equal(
        counts, sklearn.metrics.confusion_matrix(truth.ravel(), predicted.ravel(), labels=[0, 1, 2])
    )
    for ours, theirs in ((dice, sklearn.metrics.f1_score), (jaccard, sklearn.metrics.jaccard_score)):
        expected = theirs(truth.ravel(), predicted.ravel(), labels=[0, 1, 2], average=None, zero_division=0)
        absent = [label not in truth and label not in predicted for label in (0, 1, 2)]
        np.testing.assert_allclose(ours(counts), np.where(absent, np.nan, expected))


@given(truth=maps, predicted=maps, cut=st.integers(0, 6))
def test_counts_of_blocks_add_up(truth, predicted, cut):
    whole = confusion(truth, predicted, num_classes=3)
    parts = [confusion(truth[rows], predicted[rows], num_classes=3) for rows in (slice(0, cut), slice(cut, 6))]
    np.testing.assert_array_equal(sum(parts), whole)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"truth and predicted differ in shape: \(2, 2\) and \(2, 3\)"):
        confusion(np.zeros((2, 2), int), np.zeros((2, 3), int), num_classes=2)
