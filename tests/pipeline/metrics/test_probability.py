"""Calibration and precision-recall: against scikit-learn on the same float16 numbers, and by hand."""

from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics

from pipeline.metrics.probability import average_precision, calibration_error, count_probabilities
from pipeline.slides.labels import IGNORED
from tests.support.pairs import SHAPE, pairs


def softmax_of(truth, generator, *, sharpness):
    logits = generator.normal(size=(3, *SHAPE)) + sharpness * (np.arange(3)[:, None, None] == truth)
    exponents = np.exp(logits)
    return (exponents / exponents.sum(axis=0)).astype(np.float16)


def test_against_scikit_learn():
    generator = np.random.default_rng(0)
    for truth, _ in pairs(30, values=2):
        probabilities = softmax_of(truth, generator, sharpness=generator.uniform(0, 4))
        parts = [count_probabilities(truth[rows], probabilities[:, rows]) for rows in (slice(0, 9), slice(9, None))]
        ours = average_precision(parts[0] + parts[1])
        for index in range(3):
            belongs = truth.ravel() == index
            if not belongs.any():
                assert np.isnan(ours[index])
                continue
            expected = sklearn.metrics.average_precision_score(belongs, probabilities[index].ravel().astype(float))
            assert ours[index] == pytest.approx(expected)


def test_calibration_by_hand():
    truth = np.array([[0, 0, 1, 1]])
    sure = np.array([[0.75, 0.75, 0.75, 0.25]])  # of class 0: right, right, wrong, right with 0.75
    counts = count_probabilities(truth, np.stack([sure, 1 - sure]).astype(np.float16))
    assert calibration_error(counts) == pytest.approx(0)
    counts = count_probabilities(truth, np.stack([np.ones((1, 4)), np.zeros((1, 4))]).astype(np.float16))
    assert calibration_error(counts) == pytest.approx(0.5)


def test_calibration_against_plain_bins():
    generator = np.random.default_rng(1)
    truth = pairs(20, values=2)[1][0]
    probabilities = softmax_of(truth, generator, sharpness=1.0)
    confidence, best = probabilities.max(axis=0).astype(float), probabilities.argmax(axis=0)
    expected, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += abs(confidence[inside].mean() - (best == truth)[inside].mean()) * inside.mean()
    assert calibration_error(count_probabilities(truth, probabilities)) == pytest.approx(expected)


def test_pixels_without_annotation_are_left_out():
    generator = np.random.default_rng(2)
    truth = pairs(20, values=2)[1][0]
    probabilities = softmax_of(truth, generator, sharpness=1.0)
    known = generator.random(SHAPE) < 0.6
    counts = count_probabilities(np.where(known, truth, IGNORED), probabilities)
    expected = count_probabilities(truth[known][None], probabilities[:, known][:, None])
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(vars(counts)[name], values)
